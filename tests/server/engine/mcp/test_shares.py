"""One tenant's MCP servers keep no other tenant's from being served."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from circuit_breaker_server.caller_limits import CallerLimits
from circuit_breaker_server.engine.bodies import encode_body
from circuit_breaker_server.engine.errors import EngineError, ErrorCode
from circuit_breaker_server.engine.mcp.records import ServerPut, decode_body
from circuit_breaker_server.log.event_log import NewRecord
from tests.server.engine.mcp.peers import FakeMcp, fake_mcp
from tests.server.engine.mcp.worlds import create_server, events, running, statuses
from tests.server.engine.memory_log import MemoryLog

FEW = CallerLimits(checks=4, checks_per_tenant=2)


async def until_asked(fake: FakeMcp, times: int) -> None:
    while len(fake.methods) < times:
        fake.asked.clear()
        await fake.asked.wait()


async def test_a_tenant_whose_servers_hang_keeps_no_other_tenants_from_being_checked() -> None:
    log = MemoryLog()
    async with fake_mcp() as fake, running(log, limits=FEW) as engine:
        for _ in range(6):
            await create_server(engine, f"{fake.base}/hang", tenantId="bad")
        await until_asked(fake, 2)
        await create_server(engine, fake.url)
        await log.until(lambda: "STARTING>ONLINE" in statuses(log))
        assert fake.methods.count("initialize") == 3, "two of the tenant that hangs, one of the other"


async def test_a_tenant_whose_tests_hang_keeps_no_other_tenants_from_being_made() -> None:
    log = MemoryLog()
    async with fake_mcp() as fake, running(log, limits=FEW) as engine:
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
            tested = await engine.mcp.servers.test(server_id)
    assert tested.value["error"] == "no whole answer within 0.05 s"
    assert events(log, "mcpServerStatusUpdates") == []
