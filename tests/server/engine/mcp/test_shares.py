"""One tenant's MCP servers keep no other tenant's from being served."""

from __future__ import annotations

import asyncio

import msgspec
import pytest
from joserfc import jwt
from joserfc.jwk import RSAKey

from circuit_breaker_server.caller_limits import CallerLimits
from circuit_breaker_server.engine.command_origin import ORIGIN, Origin
from circuit_breaker_server.engine.engine import Engine
from circuit_breaker_server.engine.errors import EngineError, ErrorCode
from circuit_breaker_server.engine.mcp.inputs import AuthenticateJwt, InitiateOAuth
from circuit_breaker_server.engine.mcp.records import ServerPut, decode_body
from circuit_breaker_server.engine.record_bodies import encode_body
from circuit_breaker_server.engine.timestamps import timestamp
from circuit_breaker_server.log.event_log import NewRecord
from tests.server.engine.mcp.peers import FakeMcp, fake_mcp
from tests.server.engine.mcp.worlds import Clock, create_server, events, running, statuses
from tests.server.engine.memory_log import MemoryLog
from tests.server.engine.memory_secrets import MemorySecrets

NOWHERE = "http://127.0.0.1:9/mcp"
KEY = RSAKey.generate_key(2048)
JWT = {"issuer": "us", "publicKey": KEY.as_pem(private=False).decode()}
OAUTH = {"providerId": "github", "clientId": "c", "clientSecret": "hush", "scopes": []}
HANGING = CallerLimits(checks=4, checks_per_tenant=2)
FEW = CallerLimits(
    mcp_servers=4,
    mcp_servers_per_tenant=2,
    sign_ins=4,
    sign_ins_per_tenant=2,
    sessions=4,
    sessions_per_tenant=2,
)


async def until_asked(fake: FakeMcp, times: int) -> None:
    while len(fake.methods) < times:
        fake.asked.clear()
        await fake.asked.wait()


async def test_a_tenant_whose_servers_hang_keeps_no_other_tenants_from_being_checked() -> None:
    log = MemoryLog()
    async with fake_mcp() as fake, running(log, limits=HANGING) as engine:
        for _ in range(6):
            await create_server(engine, f"{fake.base}/hang", tenantId="bad")
        await until_asked(fake, 2)
        await create_server(engine, fake.url)
        await log.until(lambda: "STARTING>ONLINE" in statuses(log))
        assert fake.methods.count("initialize") == 3, "two of the tenant that hangs, one of the other"


async def test_a_tenant_whose_tests_hang_keeps_no_other_tenants_from_being_made() -> None:
    log = MemoryLog()
    async with fake_mcp() as fake, running(log, limits=HANGING) as engine:
        bad = await create_server(engine, f"{fake.base}/hang", tenantId="bad", enabled=False)
        good = await create_server(engine, fake.url, enabled=False)
        tests = [asyncio.create_task(engine.mcp.servers.test(bad)) for _ in range(6)]
        await until_asked(fake, 2)
        assert (await engine.mcp.servers.test(good)).value["success"]
        with pytest.raises(EngineError) as refused:
            await engine.mcp.servers.test(bad)
        assert refused.value.code is ErrorCode.RATE_LIMITED
        for task in tests:
            task.cancel()
        await asyncio.wait(tests)


async def test_a_timeout_that_was_configured_before_it_was_bounded_is_bounded() -> None:
    log = MemoryLog()
    limits = CallerLimits(check_seconds=0.05)
    async with fake_mcp() as fake:
        async with running(log, limits=limits) as engine:
            server_id = await create_server(
                engine, f"{fake.base}/hang", enabled=False, config={"timeoutSeconds": 1}
            )
        (record,) = log.records
        body = decode_body(record)
        assert isinstance(body, ServerPut)
        config = msgspec.structs.replace(body.server.config, timeout_seconds=300)
        slow = msgspec.structs.replace(
            body, server=msgspec.structs.replace(body.server, config=config, version=2)
        )
        await log.append(
            NewRecord(subject=record.subject, id="0" * 32, data=encode_body(slow), expected=record.offset)
        )
        async with running(log, limits=limits) as engine:
            async with asyncio.timeout(10):
                tested = await engine.mcp.servers.test(server_id)
    assert tested.value["error"] == "no whole answer within 0.05 s"
    assert events(log, "mcpServerStatusUpdates") == []


async def test_a_tenant_with_all_its_servers_leaves_the_next_tenant_its_own() -> None:
    log = MemoryLog()
    async with running(log, limits=FEW) as engine:
        first, _ = [await create_server(engine, NOWHERE, tenantId="bad", enabled=False) for _ in range(2)]
        with pytest.raises(EngineError, match="tenant 'bad' has 2 MCP servers") as refused:
            await create_server(engine, NOWHERE, tenantId="bad", enabled=False)
        assert refused.value.code is ErrorCode.INVALID_INPUT
        await create_server(engine, NOWHERE, enabled=False)
    async with running(log, limits=FEW) as again:
        with pytest.raises(EngineError, match="tenant 'bad' has 2 MCP servers"):
            await create_server(again, NOWHERE, tenantId="bad", enabled=False)
        await again.mcp.delete_server(first)
        await create_server(again, NOWHERE, tenantId="bad", enabled=False)


async def test_of_servers_made_at_the_same_time_no_more_than_the_quota_are_made() -> None:
    async with running(MemoryLog(), limits=FEW) as engine:
        made = await asyncio.gather(
            *(create_server(engine, NOWHERE, enabled=False) for _ in range(6)), return_exceptions=True
        )
    assert sum(isinstance(each, str) for each in made) == 2


async def begin(engine: Engine, server_id: str) -> None:
    await engine.mcp.sign_in.initiate_oauth(InitiateOAuth(server_id=server_id, user_id="ada"))


async def test_a_tenant_with_all_its_sign_ins_leaves_the_next_tenant_its_own() -> None:
    clock, auth = Clock(), {"oauth": {**OAUTH, "redirectUri": "https://app.example/back"}}
    log, secrets = MemoryLog(), MemorySecrets()
    async with running(log, now=clock, secrets=secrets, limits=FEW) as engine:
        bad = await create_server(engine, NOWHERE, tenantId="bad", auth=auth, enabled=True)
        good = await create_server(engine, NOWHERE, auth=auth, enabled=True)
        for _ in range(2):
            await begin(engine, bad)
        with pytest.raises(EngineError, match="tenant 'bad' has 2 sign-ins") as refused:
            await begin(engine, bad)
        assert refused.value.code is ErrorCode.RATE_LIMITED
        assert refused.value.facts["retryAfter"] == 60.0
        await begin(engine, good)
    async with running(log, now=clock, secrets=secrets, limits=FEW) as again:
        with pytest.raises(EngineError, match="tenant 'bad' has 2 sign-ins"):
            await begin(again, bad)
        clock.go_on(minutes=10)
        assert again.mcp._state.pending_sign_ins("bad", timestamp(clock())) == 0
        await begin(again, bad)


async def test_a_tenant_with_all_its_sessions_leaves_the_next_tenant_its_own() -> None:
    clock, log, secrets = Clock(), MemoryLog(), MemorySecrets()
    claims = {"iss": "us", "sub": "ada", "exp": int(clock().timestamp()) + 600}
    signed = jwt.encode({"alg": "RS256"}, claims, KEY, algorithms=["RS256"])

    async def sign_in(engine: Engine, server_id: str) -> str:
        given = AuthenticateJwt(server_id=server_id, user_id="ada", token=signed)
        return str((await engine.mcp.sign_in.authenticate_jwt(given)).value["id"])

    async with running(log, now=clock, secrets=secrets, limits=FEW) as engine:
        bad = await create_server(engine, NOWHERE, tenantId="bad", auth={"jwt": JWT})
        good = await create_server(engine, NOWHERE, auth={"jwt": JWT})
        first, _ = [await sign_in(engine, bad) for _ in range(2)]
        with pytest.raises(EngineError, match="tenant 'bad' has 2 active sessions"):
            await sign_in(engine, bad)
        await sign_in(engine, good)
    async with running(log, now=clock, secrets=secrets, limits=FEW) as again:
        with pytest.raises(EngineError, match="tenant 'bad' has 2 active sessions"):
            await sign_in(again, bad)
        await again.mcp.sessions.revoke(first)
        await sign_in(again, bad)


async def test_a_principal_that_creates_too_often_is_not_told_whether_a_server_exists() -> None:
    async def sign_in(engine: Engine, server_id: str) -> None:
        ORIGIN.set(Origin(principal="mallory"))
        given = AuthenticateJwt(server_id=server_id, user_id="ada", token="t")
        await engine.mcp.sign_in.authenticate_jwt(given)

    limits = CallerLimits(creations_per_second=0.001, creations_at_once=1)
    async with running(MemoryLog(), limits=limits) as engine:
        server_id = await create_server(engine, NOWHERE, auth={"jwt": JWT})
        codes = []
        for name in (server_id, server_id, "missing"):
            with pytest.raises(EngineError) as refused:
                await asyncio.create_task(sign_in(engine, name))
            codes.append(refused.value.code)
    assert codes == [ErrorCode.AUTHENTICATION_FAILED, ErrorCode.RATE_LIMITED, ErrorCode.NOT_FOUND]
