"""MCP servers: what makes them change their status, what they offer, what is refused."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import msgspec
import pytest
import trustme
from joserfc import jwt
from joserfc.jwk import ECKey, RSAKey

from circuit_breaker_server.engine.errors import EngineError, ErrorCode
from circuit_breaker_server.engine.mcp.inputs import (
    ConfigureJwt,
    ConfigureOAuth,
    RegisterCapabilities,
    UpdateServer,
)
from circuit_breaker_server.engine.mcp.streams import select_capability_updates, select_status_updates
from circuit_breaker_server.log.event_log import NewRecord
from tests.server.engine.mcp.peers import fake_mcp, real_server
from tests.server.engine.mcp.worlds import (
    Clock,
    create_server,
    events,
    running,
    running_in,
    server_input,
    statuses,
    tool_names,
)
from tests.server.engine.memory_log import MemoryLog
from tests.server.engine.memory_secrets import MemorySecrets
from tests.server.engine.worlds import part

NOWHERE = "http://127.0.0.1:9/mcp"  # the port of the discard service: nobody listens

FEATURES = {
    "streaming": True,
    "fileOperations": False,
    "notifications": False,
    "batchOperations": True,
    "maxRequestSize": 10,
    "contentTypes": ["application/json"],
}
OAUTH = {
    "providerId": "github",
    "clientId": "c",
    "clientSecret": "hush",
    "scopes": ["repo"],
    "redirectUri": "https://app.example/back",
}


def register_input(server_id: str, *tools: str, **more: object) -> RegisterCapabilities:
    given = {
        "serverId": server_id,
        "tools": [{"name": tool, "description": "by hand", "inputSchema": {}} for tool in tools],
        "resources": [],
        "prompts": [],
        "features": FEATURES,
        "protocolVersion": "1",
        **more,
    }
    return msgspec.convert(given, RegisterCapabilities)


# --- status ---


async def test_a_server_made_is_starting_then_online_and_offers_what_it_lists() -> None:
    log = MemoryLog()
    with real_server("add") as port:
        async with running(log) as engine:
            made = await engine.mcp.servers.create(server_input(f"http://127.0.0.1:{port}/mcp"))
            assert made.value["status"] == "STARTING"
            await log.until(lambda: len(statuses(log)) == 2)
            value = engine.mcp.server(str(made.value["id"]))
    assert value is not None
    assert value["status"] == "ONLINE"
    assert statuses(log) == ["UNKNOWN>STARTING", "STARTING>ONLINE"]
    assert tool_names(log) == [["add"]]


async def test_a_server_that_goes_away_is_an_error_and_comes_back_with_what_it_offers_then() -> None:
    log = MemoryLog()
    async with running(log, check_seconds=0.05) as engine:
        with real_server("add") as port:
            server_id = await create_server(engine, f"http://127.0.0.1:{port}/mcp")
            await log.until(lambda: "STARTING>ONLINE" in statuses(log))
        await log.until(lambda: "ONLINE>ERROR" in statuses(log))
        assert engine.mcp.servers.queries.health(server_id)["status"] == "UNHEALTHY"
        with real_server("add", "subtract", port=port):
            await log.until(lambda: len(statuses(log)) == 5)
            assert engine.mcp.servers.queries.health(server_id)["error"] is None
    assert statuses(log)[2:] == ["ONLINE>ERROR", "ERROR>STARTING", "STARTING>ONLINE"]
    assert tool_names(log) == [["add"], ["add", "subtract"]]
    failed = events(log, "mcpServerStatusUpdates")[2]
    assert "does not accept connections" in str(part(failed, "data", dict)["error"])


async def test_a_check_that_finds_nothing_new_is_no_record_but_its_time_is_known() -> None:
    log, clock = MemoryLog(), Clock()
    async with fake_mcp() as fake, running(log, now=clock, check_seconds=0.01) as engine:
        server_id = await create_server(engine, fake.url)
        await log.until(lambda: "STARTING>ONLINE" in statuses(log))
        first = engine.mcp.servers.queries.health(server_id)
        records = len(log.records)
        clock.go_on(seconds=90)
        for _ in range(3):
            fake.asked.clear()
            await fake.asked.wait()
            while fake.methods[-1] != "tools/list":
                fake.asked.clear()
                await fake.asked.wait()
        assert len(log.records) == records
        health = engine.mcp.servers.queries.health(server_id)
        assert (first["uptimeSeconds"], health["uptimeSeconds"]) == (0, 90)
        assert health["lastCheckAt"] == "2030-01-02T03:05:35.000Z"
        fake.failures = 1_000_000
        await log.until(lambda: "ONLINE>ERROR" in statuses(log))
        assert engine.mcp.servers.queries.health(server_id)["uptimeSeconds"] is None


async def test_switching_off_and_on_again_passes_through_stopping_and_starting() -> None:
    log = MemoryLog()
    async with fake_mcp() as fake, running(log) as engine:
        server_id = await create_server(engine, fake.url)
        await log.until(lambda: len(statuses(log)) == 2)
        off = await engine.mcp.servers.toggle(server_id, enabled=False)
        assert (off.value["status"], off.value["enabled"]) == ("OFFLINE", False)
        assert log.records[-1].offset == off.record.offset
        await engine.mcp.servers.toggle(server_id, enabled=False)
        on = await engine.mcp.servers.toggle(server_id, enabled=True)
        assert on.value["status"] == "STARTING"
        await log.until(lambda: len(statuses(log)) == 6)
    assert statuses(log)[2:] == ["ONLINE>STOPPING", "STOPPING>OFFLINE", "OFFLINE>STARTING", "STARTING>ONLINE"]


async def test_a_disabled_server_is_checked_when_asked_and_stays_as_it_is() -> None:
    log = MemoryLog()
    async with fake_mcp() as fake, running(log) as engine:
        server_id = await create_server(engine, fake.url, enabled=False)
        assert fake.methods == []
        done = await engine.mcp.servers.test(server_id)
        assert (done.value["success"], done.value["error"]) == (True, None)
        assert part(done.value, "details", dict) == {
            "dnsResolution": True,
            "tcpConnection": True,
            "sslHandshake": None,
            "httpStatus": 200,
            "authentication": True,
            "capabilities": True,
        }
        assert engine.mcp.servers.queries.health(server_id)["status"] == "HEALTHY"
    assert statuses(log) == []
    assert tool_names(log) == [["add"]]


async def test_a_test_that_fails_is_an_answer_and_an_error_status() -> None:
    log = MemoryLog()
    async with running(log) as engine:
        server_id = await create_server(engine, NOWHERE)
        await log.until(lambda: len(statuses(log)) == 2)
        done = await engine.mcp.servers.test(server_id)
    assert done.value["success"] is False
    assert "does not accept connections" in str(done.value["error"])
    assert statuses(log) == ["UNKNOWN>STARTING", "STARTING>ERROR"]


async def test_a_deleted_server_is_offline_and_is_gone() -> None:
    log, secrets = MemoryLog(), MemorySecrets()
    async with fake_mcp() as fake, running(log, secrets=secrets) as engine:
        server_id = await create_server(
            engine, fake.url, config={"headers": {"Authorization": "Bearer x"}}, auth={"oauth": OAUTH}
        )
        await log.until(lambda: len(statuses(log)) == 2)
        assert len(secrets.values) == 2
        done = await engine.mcp.delete_server(server_id)
        assert done.value["success"] is True
        assert engine.mcp.server(server_id) is None
        assert secrets.values == {}
        with pytest.raises(EngineError) as refused:
            await engine.mcp.delete_server(server_id)
    assert refused.value.code is ErrorCode.NOT_FOUND
    assert statuses(log)[2:] == ["ONLINE>STOPPING", "STOPPING>OFFLINE"]


@pytest.mark.parametrize("by_a_check", [False, True])
async def test_a_change_decided_on_an_old_state_is_a_conflict_unless_only_a_check_came_first(
    by_a_check: bool,
) -> None:
    log, secrets = MemoryLog(), MemorySecrets()
    async with running(log, secrets=secrets) as engine:
        server_id = await create_server(engine, NOWHERE, enabled=False)
        first = log.records[-1]
        # What others do raises the version; what checks find does not.
        data = first.data if by_a_check else first.data.replace(b'"enabled":', b'"version":2,"enabled":')
        assert by_a_check or data != first.data

        def interfere(_record: NewRecord) -> None:
            log.before_append = None
            log.put(NewRecord(subject=first.subject, id="0" * 32, data=data, expected=None))

        log.before_append = interfere
        given = UpdateServer(config=server_input(NOWHERE, config={"headers": {"X": "1"}}).config)
        if by_a_check:
            done = await engine.mcp.servers.update(server_id, given)
            assert part(done.value, "audit", dict)["version"] == 2
            assert len(secrets.values) == 1, "those of the attempt that failed are forgotten"
            return
        with pytest.raises(EngineError) as refused:
            await engine.mcp.servers.update(server_id, given)
    assert refused.value.code is ErrorCode.CONFLICT
    assert secrets.values == {}


async def test_an_update_changes_what_is_given_and_nothing_else() -> None:
    async with running(MemoryLog()) as engine:
        server_id = await create_server(
            engine, NOWHERE, enabled=False, metadata={"a": 1}, tags=["x"], description="d"
        )
        given = UpdateServer(name="new", tags=("y",))
        value = (await engine.mcp.servers.update(server_id, given)).value
        assert (value["name"], value["tags"], value["metadata"]) == ("new", ["y"], {"a": 1})
        assert part(value, "audit", dict)["version"] == 2
        given = UpdateServer(description="e", metadata={"b": 2}, enabled=True)
        value = (await engine.mcp.servers.update(server_id, given)).value
        assert (value["description"], value["metadata"], value["status"]) == ("e", {"b": 2}, "STARTING")
        config = server_input(NOWHERE, config={"timeoutSeconds": 7}).config
        value = (await engine.mcp.servers.update(server_id, UpdateServer(config=config))).value
        assert part(value, "config", dict)["timeoutSeconds"] == 7


# --- what is offered ---


async def test_what_is_registered_is_offered_beside_what_is_listed_and_the_listed_counts() -> None:
    log = MemoryLog()
    async with fake_mcp() as fake, running(log) as engine:
        server_id = await create_server(engine, fake.url, enabled=False)
        assert engine.mcp.servers.queries.capabilities(server_id) is None
        await engine.mcp.servers.register(register_input(server_id, "add", "more"))
        await engine.mcp.servers.register(register_input(server_id, "add", "more"))
        await engine.mcp.servers.test(server_id)
        value = engine.mcp.servers.queries.capabilities(server_id)
    assert tool_names(log) == [["add", "more"], ["add", "more"]]
    assert value is not None
    assert [tool["description"] for tool in part(value, "tools", list)] == ["", "by hand"]
    assert part(value, "features", dict) == {**FEATURES, "contentTypes": ("application/json",)}
    assert value["protocolVersion"] == "2025-06-18"


# --- secrets ---


async def test_secrets_are_sent_where_they_belong_and_are_in_no_record_and_no_answer() -> None:
    log, secrets, key = MemoryLog(), MemorySecrets(), RSAKey.generate_key(2048)
    public, private = (key.as_pem(private=half).decode() for half in (False, True))
    async with fake_mcp() as fake, running(log, secrets=secrets) as engine:
        server_id = await create_server(
            engine,
            fake.url,
            config={"headers": {"X-Key": "hush-header"}},
            auth={
                "jwt": {
                    "issuer": "us",
                    "audience": "them",
                    "publicKey": public,
                    "privateKey": private,
                    "customClaims": {"team": "blue"},
                    "expirationSeconds": 60,
                }
            },
        )
        await log.until(lambda: len(statuses(log)) == 2)
        token = fake.headers[0]["authorization"].removeprefix("Bearer ")
        claims = jwt.decode(token, key, algorithms=["RS256"]).claims
        assert (claims["iss"], claims["aud"], claims["team"]) == ("us", "them", "blue")
        assert claims["exp"] - claims["iat"] == 60
        assert fake.headers[0]["x-key"] == "hush-header"
        jwt_answer = engine.mcp.server(server_id)
        given = msgspec.convert({"serverId": server_id, "config": OAUTH}, ConfigureOAuth)
        oauth_answer = (await engine.mcp.servers.configure_oauth(given)).value
        assert sorted(secrets.values.values()) == ["hush", '{"X-Key":"hush-header"}']
    shown = json.dumps([jwt_answer, oauth_answer], default=lambda found: found())
    written = b"".join(record.data for record in log.records).decode()
    for text in (shown, written):
        assert "hush" not in text
        assert "PRIVATE" not in text
    assert '"X-Key": "(hidden)"' in shown


async def test_what_is_secret_does_not_go_along_to_another_address() -> None:
    log, secrets, key = MemoryLog(), MemorySecrets(), RSAKey.generate_key(2048)
    public, private = (key.as_pem(private=half).decode() for half in (False, True))
    signed = {"issuer": "us", "publicKey": public, "privateKey": private}
    async with fake_mcp() as old, fake_mcp() as new, running(log, secrets=secrets) as engine:
        server_id = await create_server(
            engine, old.url, config={"headers": {"X-Key": "hush"}}, auth={"jwt": signed}
        )
        await engine.mcp.servers.test(server_id)
        config = server_input(new.url).config
        await engine.mcp.servers.update(server_id, UpdateServer(config=config))
        await engine.mcp.servers.test(server_id)
        assert secrets.values == {}
    assert all("authorization" in sent and sent["x-key"] == "hush" for sent in old.headers)
    assert new.headers
    assert not any("authorization" in sent or "x-key" in sent for sent in new.headers)


# --- refusals ---

KEY = RSAKey.generate_key(2048)
PEM = KEY.as_pem(private=False).decode()
JWT = {"issuer": "us", "publicKey": PEM}
OTHER_PRIVATE = RSAKey.generate_key(2048).as_pem(private=True).decode()
CURVE = ECKey.generate_key("P-256").as_pem(private=False).decode()


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"name": " "}, "name: must not be empty"),
        ({"name": "x" * 257}, "name: 257 characters"),
        ({"tenantId": ""}, "tenantId: must not be empty"),
        ({"description": "x" * 10_001}, "description: 10001"),
        ({"metadata": [1]}, "metadata must be an object"),
        ({"tags": ["a", "a"]}, "tags: 'a' is there twice"),
        ({"tags": [str(i) for i in range(51)]}, "tags: 51 of them"),
        ({"config": {"endpoint": None}}, "config.endpoint: is needed"),
        ({"config": {"endpoint": "ftp://x/"}}, "config.endpoint: must be an absolute http"),
        ({"config": {"endpoint": "http://u:p@x/"}}, "must not hold credentials"),
        ({"config": {"endpoint": "http://x/#y"}}, "no fragment"),
        ({"config": {"endpoint": "http://x/" + "y" * 2048}}, "at most 2048"),
        ({"type": "LOCAL", "config": {"endpoint": "http://x/"}}, "must be on this machine"),
        ({"config": {"timeoutSeconds": 31}}, "config.timeoutSeconds: 31 is not between 1 and 30"),
        ({"config": {"timeoutSeconds": 0}}, "config.timeoutSeconds: 0 is not between 1 and 30"),
        ({"config": {"maxConnections": 1}}, "config.maxConnections: 1 is not between 2"),
        ({"config": {"rateLimit": {}}}, "config.rateLimit: is not supported"),
        ({"config": {"retry": {"maxAttempts": 11}}}, "config.retry.maxAttempts"),
        ({"config": {"retry": {"initialDelayMs": -1}}}, "config.retry.initialDelayMs"),
        ({"config": {"retry": {"maxDelayMs": 60_001}}}, "config.retry.maxDelayMs"),
        ({"config": {"retry": {"backoffMultiplier": 0.5}}}, "config.retry.backoffMultiplier"),
        ({"config": {"retry": {"jitterFactor": 2.0}}}, "config.retry.jitterFactor"),
        ({"config": {"headers": {f"x-{n}": "x" for n in range(51)}}}, "config.headers"),
        ({"metadata": {"a": "x" * 70_000}}, "metadata takes"),
        (
            {"config": {"endpoint": "https://x/", "ssl": {"verify": True, "caCert": "x" * 65_537}}},
            "a PEM has at most 65536",
        ),
        ({"config": {"headers": {"a b": "x"}}}, "is not the name of a header"),
        ({"config": {"headers": {"Host": "x"}}}, "Host is the protocol's own"),
        ({"config": {"headers": {"X": "a\nb"}}}, "must be printable ASCII"),
        ({"config": {"headers": {"X": 1}}}, "every value must be a text"),
        ({"config": {"ssl": {}}}, "config.ssl: is for https endpoints only"),
        ({"config": {"endpoint": "https://x/", "ssl": {"clientCert": "x"}}}, "are given together"),
        ({"config": {"endpoint": "https://x/", "ssl": {"caCert": "x"}}}, "no PEM"),
        (
            {"config": {"endpoint": "https://x/", "ssl": {"clientCert": "x", "clientKey": "y"}}},
            "no PEM",
        ),
        ({"config": {"endpoint": "https://x/", "ssl": {"verify": False, "caCert": "x"}}}, "leave out"),
        ({"auth": {}}, "auth: give exactly one"),
        ({"auth": {"oauth": OAUTH, "jwt": JWT}}, "auth: give exactly one"),
        ({"auth": {"oauth": {**OAUTH, "providerId": "x"}}}, "'x' is none of gitlab, github, google, micro"),
        ({"auth": {"oauth": {**OAUTH, "clientId": ""}}}, "auth.oauth.clientId"),
        ({"auth": {"oauth": {**OAUTH, "clientSecret": ""}}}, "auth.oauth.clientSecret"),
        ({"auth": {"oauth": {**OAUTH, "clientSecret": "x" * 4097}}}, "has at most 4096 characters"),
        ({"auth": {"oauth": {**OAUTH, "scopes": ["a b"]}}}, "has a blank in it"),
        ({"auth": {"oauth": {**OAUTH, "redirectUri": "x"}}}, "auth.oauth.redirectUri"),
        ({"auth": {"oauth": {**OAUTH, "additionalParams": {"state": "x"}}}}, "state is set by the server"),
        ({"auth": {"oauth": {**OAUTH, "refreshConfig": {"maxRefreshAttempts": 0}}}}, "maxRefreshAttempts"),
        ({"auth": {"jwt": {**JWT, "issuer": ""}}}, "auth.jwt.issuer"),
        ({"auth": {"jwt": {**JWT, "audience": ""}}}, "auth.jwt.audience"),
        ({"auth": {"jwt": {**JWT, "algorithm": "HS256"}}}, "'HS256' is none of RS256"),
        ({"auth": {"jwt": {**JWT, "algorithm": "none"}}}, "'none' is none of"),
        ({"auth": {"jwt": {**JWT, "publicKey": "x"}}}, "publicKey: is no PEM or JWK"),
        ({"auth": {"jwt": {**JWT, "publicKey": '{"kty":1}'}}}, "publicKey: is no PEM or JWK"),
        ({"auth": {"jwt": {**JWT, "publicKey": CURVE}}}, "publicKey: is no PEM or JWK of a key for RS256"),
        ({"auth": {"jwt": {**JWT, "publicKey": CURVE, "algorithm": "ES384"}}}, "does not fit ES384"),
        ({"auth": {"jwt": {**JWT, "publicKey": OTHER_PRIVATE}}}, "publicKey: is a private key"),
        ({"auth": {"jwt": {**JWT, "privateKey": OTHER_PRIVATE}}}, "is not the other half"),
        ({"auth": {"jwt": {**JWT, "expirationSeconds": 0}}}, "auth.jwt.expirationSeconds"),
        ({"auth": {"jwt": {**JWT, "customClaims": {"iss": "x"}}}}, "iss is not a claim of your own"),
    ],
)
async def test_what_has_no_meaning_is_refused_and_nothing_is_changed(
    given: dict[str, object], text: str
) -> None:
    log, secrets = MemoryLog(), MemorySecrets()
    async with running(log, secrets=secrets) as engine:
        with pytest.raises(EngineError) as refused:
            await engine.mcp.servers.create(server_input("http://127.0.0.1:9/mcp", **given))
    assert refused.value.code is ErrorCode.INVALID_INPUT
    assert text in str(refused.value)
    assert log.records == []
    assert secrets.values == {}


async def test_certificates_and_keys_that_fit_are_taken_and_the_key_is_not_shown() -> None:
    authority = trustme.CA()
    ours = authority.issue_cert("client.example")
    ssl = {
        "caCert": authority.cert_pem.bytes().decode(),
        "clientCert": "".join(blob.bytes().decode() for blob in ours.cert_chain_pems),
        "clientKey": ours.private_key_pem.bytes().decode(),
    }
    config = {"endpoint": "https://127.0.0.1:9/", "ssl": ssl}
    log = MemoryLog()
    async with running(log) as engine:
        value = (await engine.mcp.servers.create(server_input(None, config=config, enabled=False))).value
    shown = part(part(value, "config", dict), "ssl", dict)
    assert (shown["clientKey"], shown["caCert"]) == (None, ssl["caCert"])
    assert b"PRIVATE KEY" not in log.records[0].data


async def test_what_nobody_made_is_not_found() -> None:
    jwt_input = msgspec.convert({"serverId": "x", "config": JWT}, ConfigureJwt)
    oauth_input = msgspec.convert({"serverId": "x", "config": OAUTH}, ConfigureOAuth)
    async with running(MemoryLog()) as engine:
        servers = engine.mcp.servers
        for command in (
            servers.update("x", UpdateServer()),
            servers.toggle("x", enabled=True),
            servers.test("x"),
            servers.register(register_input("x")),
            servers.configure_jwt(jwt_input),
            servers.configure_oauth(oauth_input),
        ):
            with pytest.raises(EngineError) as refused:
                await command
            assert refused.value.code is ErrorCode.NOT_FOUND
        for query in (servers.queries.capabilities, servers.queries.health):
            with pytest.raises(EngineError, match="there is no MCP server 'x'"):
                query("x")


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"protocolVersion": ""}, "protocolVersion"),
        ({"tools": [{"name": "a", "description": "", "inputSchema": 1}]}, "inputSchema: must be an object"),
        ({"tools": [{"name": "", "description": "", "inputSchema": {}}]}, "tools: a name or URI"),
        ({"tools": [{"name": "a", "description": "", "inputSchema": {}}] * 2}, "tools: 'a' is there twice"),
        (
            {"tools": [{"name": str(n), "description": "", "inputSchema": {}} for n in range(501)]},
            "tools: 501 of them",
        ),
        ({"resources": [{"uri": "", "name": "x", "type": "t"}]}, "resources: a name or URI"),
        ({"features": {**FEATURES, "maxRequestSize": 0}}, "features.maxRequestSize"),
        ({"resources": [{"uri": "x", "name": "x" * 300_000, "type": "t"}]}, "bytes as JSON"),
    ],
)
async def test_what_no_server_could_offer_is_not_registered(given: dict[str, object], text: str) -> None:
    async with running(MemoryLog()) as engine:
        server_id = await create_server(engine, NOWHERE, enabled=False)
        with pytest.raises(EngineError, match=text):
            await engine.mcp.servers.register(register_input(server_id, **given))


# --- streams, restarts ---


def test_a_subscription_reads_one_server_or_all() -> None:
    assert select_status_updates({}).subjects == ("mcp.server.*",)
    assert select_status_updates({"serverId": "a.b"}).subjects == ("mcp.server.a%2Eb",)
    assert select_capability_updates({"serverId": "a"}).subjects == ("mcp.server.a",)
    with pytest.raises(EngineError, match="must not be empty"):
        select_status_updates({"serverId": ""})


async def test_a_restart_finds_servers_as_they_were_and_checks_them_at_once(tmp_path: Path) -> None:
    async with fake_mcp() as fake:
        async with running_in(tmp_path) as engine:
            server_id = await create_server(engine, fake.url, enabled=False, auth={"jwt": JWT})
            await engine.mcp.servers.test(server_id)
            before = json.dumps(engine.mcp.server(server_id), default=lambda found: found())
            await engine.mcp.servers.toggle(server_id, enabled=True)
            await engine.mcp.servers.test(server_id)
        fake.asked.clear()
        async with running_in(tmp_path) as engine:
            value = engine.mcp.server(server_id)
            assert value is not None
            assert value["status"] == "ONLINE"
            async with asyncio.timeout(10):
                await fake.asked.wait()
            after = json.loads(json.dumps(value, default=lambda found: found()))
    old = json.loads(before)
    for changed in ("status", "enabled", "health", "audit"):
        del old[changed], after[changed]
    assert after == old
