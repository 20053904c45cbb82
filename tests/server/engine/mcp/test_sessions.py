"""Sessions: who may sign in, how long they last, and that each ends once."""

from __future__ import annotations

import json
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import msgspec
import pytest
from joserfc import jwt
from joserfc.jwk import RSAKey

from circuit_breaker_server.engine.command import Value
from circuit_breaker_server.engine.engine import Engine
from circuit_breaker_server.engine.errors import EngineError, ErrorCode
from circuit_breaker_server.engine.mcp import session_refresh
from circuit_breaker_server.engine.mcp.inputs import (
    AuthenticateJwt,
    CompleteOAuth,
    ConfigureOAuth,
    InitiateOAuth,
)
from circuit_breaker_server.engine.mcp.streams import select_session_events
from circuit_breaker_server.engine.paging import Pagination
from circuit_breaker_server.log.event_log import NewRecord
from tests.server.engine.mcp.oauth_provider import corp, oauth
from tests.server.engine.mcp.peers import token_endpoint
from tests.server.engine.mcp.worlds import Clock, create_server, events, running, running_in
from tests.server.engine.memory_log import MemoryLog
from tests.server.engine.memory_secrets import MemorySecrets
from tests.server.engine.worlds import part

NOWHERE = "http://127.0.0.1:9/mcp"
KEY = RSAKey.generate_key(2048)
JWT = {
    "issuer": "us",
    "audience": "them",
    "publicKey": KEY.as_pem(private=False).decode(),
    "customClaims": {"team": "blue"},
    "expirationSeconds": 7200,
}
NOW = int(Clock()().timestamp())


def token(key: RSAKey = KEY, algorithm: str = "RS256", **claims: object) -> str:
    given = {"iss": "us", "aud": "them", "sub": "ada", "team": "blue", "exp": NOW + 600, **claims}
    kept = {name: value for name, value in given.items() if value is not None}
    return jwt.encode({"alg": algorithm}, kept, key, algorithms=[algorithm])


async def sign_in(engine: Engine, server_id: str, text: str, user: str = "ada") -> Value:
    given = AuthenticateJwt(server_id=server_id, user_id=user, token=text, metadata={"from": "test"})
    return (await engine.mcp.sign_in.authenticate_jwt(given)).value


def kinds(log: MemoryLog) -> list[object]:
    return [event["type"] for event in events(log, "mcpSessionEvents")]


async def begin(engine: Engine, server_id: str) -> Value:
    given = InitiateOAuth(server_id=server_id, user_id="ada", additional_params={"prompt": "login"})
    return (await engine.mcp.sign_in.initiate_oauth(given)).value


async def complete(engine: Engine, server_id: str, state: object, **more: str) -> Value:
    given = {"serverId": server_id, "userId": "ada", "code": "code-1", "state": state, **more}
    return (await engine.mcp.sign_in.complete_oauth(msgspec.convert(given, CompleteOAuth))).value


async def test_a_token_that_is_in_order_makes_a_session() -> None:
    log, clock, secrets = MemoryLog(), Clock(), MemorySecrets()
    async with running(log, now=clock, secrets=secrets) as engine:
        server_id = await create_server(engine, NOWHERE, auth={"jwt": JWT})
        signed = token()
        value = await sign_in(engine, server_id, signed)
        assert (value["status"], value["authMethod"], value["metadata"]) == (
            "ACTIVE",
            "JWT",
            {"from": "test"},
        )
        assert value["expiresAt"] == "2030-01-02T05:04:05.000Z"
        assert value["tokenExpiresAt"] == "2030-01-02T03:14:05.000Z"
        assert (value["accessToken"], value["refreshToken"]) == (None, None)
        assert list(secrets.values.values()) == [signed]
        clock.go_on(hours=1)
        again = (await engine.mcp.sessions.refresh(str(value["id"]))).value
        assert (again["expiresAt"], again["requestCount"]) == ("2030-01-02T06:04:05.000Z", 1)
        await engine.mcp.sessions.revoke(str(value["id"]))
        assert secrets.values == {}
        with pytest.raises(EngineError, match="the session is REVOKED"):
            await engine.mcp.sessions.refresh(str(value["id"]))
    assert kinds(log) == ["CREATED", "REFRESHED", "REVOKED"]
    counts = [part(part(e, "session", dict), "server", dict) for e in events(log, "mcpSessionEvents")]
    assert [server["activeSessionsCount"] for server in counts] == [1, 1, 0]
    assert signed.encode() not in b"".join(record.data for record in log.records)


@pytest.mark.parametrize(
    "text",
    [
        token(RSAKey.generate_key(2048)),
        token(algorithm="PS256"),
        token(iss="others"),
        token(aud="others"),
        token(aud=None),
        token(sub="bob"),
        token(sub=None),
        token(exp=NOW),
        token(exp=None),
        token(nbf=NOW + 60),
        token(team="red"),
        token(team=None),
        "no.token.atall",
        "",
    ],
)
async def test_a_token_that_is_not_in_order_is_refused_and_leaves_nothing(text: str) -> None:
    log, secrets = MemoryLog(), MemorySecrets()
    async with running(log, now=Clock(), secrets=secrets) as engine:
        server_id = await create_server(engine, NOWHERE, auth={"jwt": JWT}, enabled=True)
        with pytest.raises(EngineError) as refused:
            await sign_in(engine, server_id, text)
    assert refused.value.code is ErrorCode.AUTHENTICATION_FAILED
    assert kinds(log) == []
    assert secrets.values == {}


async def test_a_session_expires_once_by_the_clock() -> None:
    log = MemoryLog()
    async with (
        token_endpoint() as provider,
        running(log, session_seconds=0.05, providers=[corp(provider)]) as engine,
    ):
        server_id = await create_server(engine, NOWHERE, auth=oauth())
        await complete(engine, server_id, (await begin(engine, server_id))["state"])
        await log.until(lambda: "EXPIRED" in kinds(log))
        await engine.mcp.sessions.expire()
    assert kinds(log) == ["CREATED", "EXPIRED"]


async def test_sessions_that_expire_while_the_log_is_away_expire_when_it_is_back() -> None:
    log, clock = MemoryLog(), Clock()
    async with running(log, now=clock) as engine:
        server_id = await create_server(engine, NOWHERE, auth={"jwt": JWT}, enabled=True)
        for _ in range(3):
            await sign_in(engine, server_id, token())
        clock.go_on(hours=3)
        log.full = True
        for _ in range(2):
            with pytest.raises(EngineError) as failed:
                await engine.mcp.sessions.expire()
            assert failed.value.code is ErrorCode.UNAVAILABLE
        log.full = False
        await engine.mcp.sessions.expire()
    assert kinds(log) == ["CREATED"] * 3 + ["EXPIRED"] * 3


async def test_what_expired_while_the_server_was_down_is_expired_at_its_start_and_only_then(
    tmp_path: Path,
) -> None:
    clock, secrets = Clock(), MemorySecrets()
    async with running_in(tmp_path, now=clock, secrets=secrets) as engine:
        server_id = await create_server(engine, NOWHERE, auth={"jwt": JWT}, enabled=True)
        session_id = (await sign_in(engine, server_id, token()))["id"]
    clock.go_on(hours=3)
    for _ in range(2):
        async with running_in(tmp_path, now=clock, secrets=secrets) as engine:
            (edge,) = part(engine.mcp.session_page(None), "edges", list)
            assert (edge["node"]["id"], edge["node"]["status"]) == (session_id, "EXPIRED")
    assert secrets.values == {}


async def test_a_sign_in_at_a_provider_proves_itself_and_its_state_is_good_once() -> None:
    log, secrets = MemoryLog(), MemorySecrets()
    async with (
        token_endpoint() as provider,
        running(log, now=Clock(), secrets=secrets, providers=[corp(provider)]) as engine,
    ):
        server_id = await create_server(engine, NOWHERE, auth=oauth())
        begun = await begin(engine, server_id)
        query = parse_qs(urlsplit(str(begun["authorizationUrl"])).query)
        assert (query["x"], query["prompt"], query["scope"]) == (["1"], ["login"], ["a b"])
        assert (query["code_challenge_method"], query["state"]) == (["S256"], [begun["state"]])
        with pytest.raises(EngineError) as other:
            await complete(engine, server_id, begun["state"], userId="bob")
        value = await complete(engine, server_id, begun["state"])
        with pytest.raises(EngineError) as twice:
            await complete(engine, server_id, begun["state"])
        assert {other.value.code, twice.value.code} == {ErrorCode.AUTHENTICATION_FAILED}
        provider.answers = [{"access_token": "at-2"}]
        await engine.mcp.sessions.refresh(str(value["id"]))
        provider.answers = [400]
        with pytest.raises(EngineError, match="HTTP status 400: invalid_grant") as failed:
            await engine.mcp.sessions.refresh(str(value["id"]))
        assert failed.value.code is ErrorCode.PROVIDER_FAILED
        assert sorted(secrets.values.values()) == ["at-2", "hush", "rt-1"]
        await engine.mcp.delete_server(server_id)
        assert secrets.values == {}
    exchange, refresh, _ = provider.forms
    assert (exchange["grant_type"], exchange["client_secret"]) == ("authorization_code", "hush")
    assert len(exchange["code_verifier"]) >= 43
    assert (refresh["grant_type"], refresh["refresh_token"]) == ("refresh_token", "rt-1")
    assert kinds(log) == ["CREATED", "REFRESHED", "ERROR", "REVOKED"]
    written = b"".join(record.data for record in log.records).decode() + json.dumps(
        events(log, "mcpSessionEvents")
    )
    for secret in ("hush", "at-1", "at-2", "rt-1", exchange["code_verifier"], str(begun["state"])):
        assert secret not in written


async def test_codes_and_tokens_of_one_provider_go_to_no_other() -> None:
    async with token_endpoint() as first, token_endpoint() as second:
        other = msgspec.structs.replace(corp(second), id="other")
        async with running(MemoryLog(), providers=[corp(first), other], secrets=MemorySecrets()) as engine:
            server_id = await create_server(engine, NOWHERE, auth=oauth())
            begun = await begin(engine, server_id)
            session = await complete(engine, server_id, begun["state"])
            late = await begin(engine, server_id)
            moved = {"serverId": server_id, "config": oauth(providerId="other")["oauth"]}
            await engine.mcp.servers.configure_oauth(msgspec.convert(moved, ConfigureOAuth))
            with pytest.raises(EngineError) as refused:
                await complete(engine, server_id, late["state"])
            with pytest.raises(EngineError, match="another provider"):
                await engine.mcp.sessions.refresh(str(session["id"]))
    assert refused.value.code is ErrorCode.AUTHENTICATION_FAILED
    assert second.forms == []


async def test_a_sign_in_that_takes_too_long_is_refused() -> None:
    clock = Clock()
    async with (
        token_endpoint() as provider,
        running(MemoryLog(), now=clock, providers=[corp(provider)], secrets=MemorySecrets()) as engine,
    ):
        server_id = await create_server(engine, NOWHERE, auth=oauth())
        begun = await begin(engine, server_id)
        clock.go_on(minutes=10)
        with pytest.raises(EngineError) as refused:
            await complete(engine, server_id, begun["state"])
    assert refused.value.code is ErrorCode.AUTHENTICATION_FAILED
    assert provider.forms == []


@pytest.mark.parametrize("answer", [500, "<html>", {}, {"access_token": ""}, {"error": "bad_code"}])
async def test_a_provider_that_gives_no_token_makes_no_session(answer: object) -> None:
    log = MemoryLog()
    async with token_endpoint() as provider:
        provider.answers = [answer]
        async with running(log, providers=[corp(provider)]) as engine:
            server_id = await create_server(engine, NOWHERE, auth=oauth())
            begun = await begin(engine, server_id)
            with pytest.raises(EngineError) as failed:
                await complete(engine, server_id, begun["state"])
    assert failed.value.code is ErrorCode.PROVIDER_FAILED
    assert kinds(log) == []


async def test_tokens_are_renewed_before_they_expire_and_a_failure_is_an_event() -> None:
    log = MemoryLog()
    async with token_endpoint() as provider:
        first = {"access_token": "a", "expires_in": 100, "refresh_token": "r"}
        provider.answers = [first, {"access_token": "b", "expires_in": 100}, 500]
        async with running(log, providers=[corp(provider)]) as engine:
            wanted = {"refreshThresholdSeconds": 200, "maxRefreshAttempts": 2, "refreshRetryDelaySeconds": 0}
            server_id = await create_server(engine, NOWHERE, auth=oauth(refreshConfig=wanted))
            await complete(engine, server_id, (await begin(engine, server_id))["state"])
            await log.until(lambda: "ERROR" in kinds(log))
    assert kinds(log) == ["CREATED", "REFRESHED", "ERROR"]
    assert len(provider.forms) == 4


async def test_tokens_are_renewed_once_the_log_is_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session_refresh, "_PAUSE_SECONDS", 0.0)
    log = MemoryLog()
    tries = 0

    def fail_twice(record: NewRecord) -> None:
        nonlocal tries
        if b'"REFRESHED"' in record.data:
            tries += 1
            log.full = tries <= 2

    log.before_append = fail_twice
    async with token_endpoint() as provider:
        first = {"access_token": "a", "expires_in": 100, "refresh_token": "r"}
        renewed = {"access_token": "b", "expires_in": 1_000, "refresh_token": "s"}
        provider.answers = [first, *[renewed] * 3]
        async with running(log, providers=[corp(provider)]) as engine:
            server_id = await create_server(
                engine, NOWHERE, auth=oauth(refreshConfig={"refreshThresholdSeconds": 200})
            )
            await complete(engine, server_id, (await begin(engine, server_id))["state"])
            await log.until(lambda: "REFRESHED" in kinds(log))
    assert kinds(log) == ["CREATED", "REFRESHED"]


async def test_sessions_come_in_pages_and_bad_pages_are_refused() -> None:
    async with running(MemoryLog(), now=Clock()) as engine:
        server_id = await create_server(engine, NOWHERE, auth={"jwt": JWT})
        made = [(await sign_in(engine, server_id, token()))["id"] for _ in range(3)]
        page = engine.mcp.session_page(Pagination(first=2), user_id="ada", server_id=server_id)
        info = part(page, "pageInfo", dict)
        assert [edge["node"]["id"] for edge in part(page, "edges", list)] == made[:2]
        assert (info["hasNextPage"], info["hasPreviousPage"], page["totalCount"]) == (True, False, 3)
        rest = engine.mcp.session_page(Pagination(after=info["endCursor"]))
        assert [edge["node"]["id"] for edge in part(rest, "edges", list)] == made[2:]
        last = engine.mcp.session_page(Pagination(last=1, before=info["endCursor"]))
        assert [edge["node"]["id"] for edge in part(last, "edges", list)] == made[:1]
        assert engine.mcp.session_page(None, user_id="bob")["totalCount"] == 0
        for bad in (
            Pagination(first=101),
            Pagination(last=-1),
            Pagination(first=1, last=1),
            Pagination(after="x"),
        ):
            with pytest.raises(EngineError, match="pagination"):
                engine.mcp.session_page(bad)


def test_a_subscription_reads_sessions_of_a_user_of_a_server_or_all() -> None:
    assert select_session_events({}).subjects == ("mcp.session.*.*.*",)
    assert select_session_events({"userId": "a", "serverId": "s"}).subjects == ("mcp.session.s.a.*",)
