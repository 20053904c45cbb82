"""A stream that does not continue what a node has seen: the node says so and stops."""

from __future__ import annotations

import asyncio

import pytest

from circuit_breaker_server.log.event_log import LogCorruptError, LogError
from circuit_breaker_server.log.jetstream import JetStreamEventLog, tail
from tests.conformance.nats_server import NatsServer
from tests.server.log.jetstream.log_stage import (
    api,
    connected,
    new,
    opened,
    opened_through_proxy,
    until_disconnected,
)


async def failure(log: JetStreamEventLog) -> LogError:
    """Wait until the tail has ended, and return what an append raises then."""
    task = log._tail._task
    assert task is not None
    await asyncio.wait([task])
    with pytest.raises(LogError) as failed:
        await log.append(new())
    with pytest.raises(type(failed.value)):
        await log.read(after=0)
    return failed.value


async def test_a_stream_that_was_replaced_is_noticed(server: NatsServer) -> None:
    async with opened(server.url) as log:
        await log.append(new())
        async with connected(server.url) as client:
            await api(client, "STREAM.DELETE.events")
        async with opened(server.url) as other:
            await other.append(new())
            assert isinstance(await failure(log), LogCorruptError)


async def test_a_stream_that_has_lost_acknowledged_records_is_noticed(
    server: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tail, "_SHORT_ANSWER_SECONDS", 0.0)
    async with opened(server.url) as log, connected(server.url) as client:
        await log.append(new())
        await log.append(new())
        config = (await api(client, "STREAM.INFO.events"))["config"]
        await api(client, "STREAM.DELETE.events")
        await api(client, "STREAM.CREATE.events", config)
        assert "ends at 0, and this server has seen 2" in str(await failure(log))


async def test_records_trimmed_before_a_node_has_seen_them_are_noticed(server: NatsServer) -> None:
    async with opened_through_proxy(server) as (log, proxy), opened(server.url) as other:
        proxy.refuses = True
        proxy.cut()
        await until_disconnected(log)
        for _ in range(3):
            await other.append(new())
        await other.save_snapshot(3, [])
        await other.trim(3)
        proxy.refuses = False
        assert "trimmed before this server has seen them" in str(await failure(log))
