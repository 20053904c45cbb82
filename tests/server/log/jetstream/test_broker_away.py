"""The broker goes away and comes back: no append is lost, doubled, or guessed."""

from __future__ import annotations

import asyncio

import pytest
from nats.aio.msg import Msg

from circuit_breaker_sdk.testing import Direction
from circuit_breaker_server.log.event_log import AppendOutcomeUnknown, LogWriteError, Record
from circuit_breaker_server.log.jetstream import tail
from circuit_breaker_server.log.jetstream.errors import BrokerUnavailable
from tests.conformance.nats_server import NatsServer
from tests.server.log.jetstream.log_stage import (
    Watch,
    api,
    connected,
    everything,
    new,
    opened,
    opened_through_proxy,
    until_disconnected,
)
from tests.waiting import until


@pytest.mark.parametrize("expected", [None, 0])
@pytest.mark.parametrize("count", [1, 40])
async def test_a_lost_acknowledgement_neither_loses_nor_doubles_an_append(
    server: NatsServer, expected: int | None, count: int
) -> None:
    async with opened(server.url) as other, opened_through_proxy(server) as (log, proxy):
        seen = Watch(other)
        proxy.stall(Direction.TO_CLIENT)
        wanted = [new(f"s{i}", expected=expected) for i in range(count)]
        appends = asyncio.gather(*map(log.append, wanted))
        await seen.until(lambda records: len(records) == count)
        proxy.cut()
        proxy.flow()
        records = await appends
        assert sorted(records, key=lambda r: r.offset) == seen.records == await everything(other)
        assert [r.id for r in records] == [w.id for w in wanted]


@pytest.mark.parametrize("expected", [None, 0])
@pytest.mark.parametrize("count", [1, 40])
async def test_an_append_that_did_not_reach_the_broker_is_sent_again(
    server: NatsServer, expected: int | None, count: int
) -> None:
    async with opened_through_proxy(server) as (log, proxy):
        proxy.stall(Direction.TO_SERVER)
        wanted = [new(f"s{i}", expected=expected) for i in range(count)]
        appends = asyncio.gather(*map(log.append, wanted))
        for _ in range(10):
            await asyncio.sleep(0)
        proxy.cut()
        proxy.flow()
        assert sorted(await appends, key=lambda r: r.offset) == await everything(log)
        assert log.last_offset == count


async def test_a_connection_cut_again_and_again_leaves_each_append_once(server: NatsServer) -> None:
    async def append_in_a_row(lane: int) -> list[Record]:
        records: list[Record] = []
        for _ in range(15):
            last = records[-1].offset if records else 0
            records.append(await log.append(new(f"lane.{lane}", expected=last)))
        return records

    async with opened_through_proxy(server) as (log, proxy):
        seen = Watch(log)
        lanes = asyncio.gather(*map(append_in_a_row, range(16)))
        for i in range(6):
            await seen.until(lambda records, i=i: len(records) > 30 * i)  # type: ignore[misc]
            proxy.cut(after_bytes=100 + 997 * i, direction=list(Direction)[i % 2])
        appended = sorted((r for lane in await lanes for r in lane), key=lambda r: r.offset)
        assert appended == seen.records == await everything(log)
        assert len(appended) == 240


async def test_appends_and_the_tail_go_on_when_the_broker_was_started_again(server: NatsServer) -> None:
    async with opened(server.url) as log:
        seen = Watch(log)
        first = await log.append(new("a"))
        server.kill()
        append = asyncio.create_task(log.append(new("a", expected=first.offset)))
        read = asyncio.create_task(log.read(after=0))
        await asyncio.sleep(0)
        server.start()
        second = await append
        assert (await read)[0] == first
        assert seen.records == await everything(log) == [first, second]
        epoch = log.epoch
    async with opened(server.url) as again:
        assert again.epoch == epoch


async def test_without_a_broker_an_append_fails_and_is_not_in_the_log(server: NatsServer) -> None:
    wanted = new("a")
    async with opened_through_proxy(server, patience_seconds=0.5) as (log, proxy):
        proxy.refuses = True
        proxy.cut()
        await until_disconnected(log)
        with pytest.raises(LogWriteError) as failed:
            await log.append(wanted)
        assert not isinstance(failed.value, AppendOutcomeUnknown)
    async with opened(server.url) as log:
        assert await everything(log) == []


async def test_an_outcome_that_cannot_be_known_is_called_unknown(server: NatsServer) -> None:
    async with opened_through_proxy(server, patience_seconds=0.5) as (log, proxy):
        seen = Watch(log)
        proxy.stall()
        wanted = new("a", expected=0)
        with pytest.raises(AppendOutcomeUnknown, match="may be in the log"):
            await log.append(wanted)
        proxy.cut()
        proxy.flow()
        record: Record | None = None
        while record is None:
            try:
                record = await log.append(wanted)
            except LogWriteError:
                continue
        assert await everything(log) == [record] == seen.records


async def test_a_consumer_deleted_behind_the_logs_back_is_replaced(server: NatsServer) -> None:
    async with opened(server.url) as log, connected(server.url) as client:
        seen = Watch(log)
        for i in range(3):
            await log.append(new("a"))
            names = (await api(client, "CONSUMER.NAMES.events"))["consumers"]
            assert names
            for name in names:
                await api(client, f"CONSUMER.DELETE.events.{name}")
            await log.append(new("b"))
            assert len(seen.records) == 2 * i + 2
        assert seen.records == await everything(log)


async def test_messages_dropped_on_the_way_are_fetched_again(
    server: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    receive = tail._Consumer._receive_record
    dropped = iter([False, True, True, False, True])

    def lossy(consumer: tail._Consumer, message: Msg) -> None:
        if not next(dropped, False):
            receive(consumer, message)

    monkeypatch.setattr(tail._Consumer, "_receive_record", lossy)
    async with opened(server.url) as log:
        seen = Watch(log)
        records = await asyncio.gather(*(log.append(new(f"s{i}", expected=0)) for i in range(5)))
        records += await asyncio.gather(*(log.append(new(f"t{i}", expected=0)) for i in range(5)))
        assert sorted(records, key=lambda r: r.offset) == seen.records == await everything(log)


async def test_a_replica_that_lags_is_asked_again(
    server: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(server.url) as log:
        records = [await log.append(new(name)) for name in "abab"]
        log._streams.replicas = 3
        ask = log._reader._ask
        kept = iter([0, 0, 2])  # of the first answers, so many messages come

        async def lagging(query: dict[str, object]) -> tuple[list[Msg], bool]:
            messages, is_end = await ask(query)
            count = next(kept, None)
            return (messages, is_end) if count is None else (messages[:count], True)

        monkeypatch.setattr(log._reader, "_ask", lagging)
        assert await log.read(after=0) == records
        kept = iter([0, 1, 0])
        assert await log.read(after=0, subjects=("b",)) == [records[1], records[3]]
        kept = iter([0])
        assert await log.check(4) == records[3].check
        assert await log.read(after=0, subjects=("nobody",)) == []


async def test_while_no_consumer_can_be_made_records_are_read_and_appends_go_on(
    server: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where the leader of all brokers was lost, and that of the stream was not."""
    opens = tail._Consumer.open
    may_open = asyncio.Event()
    refused = 0

    async def refusing(consumer: tail._Consumer) -> None:
        nonlocal refused
        if not may_open.is_set():
            refused += 1
            raise BrokerUnavailable("no leader of all brokers", was_sent=True)
        await opens(consumer)

    async with opened(server.url) as one, opened(server.url) as log, connected(server.url) as client:
        seen = Watch(log)
        await log.append(new("a"))
        monkeypatch.setattr(tail._Consumer, "open", refusing)
        for name in (await api(client, "CONSUMER.NAMES.events"))["consumers"]:
            await api(client, f"CONSUMER.DELETE.events.{name}")
        for number in range(20):
            await log.append(new(f"b{number}", expected=0))
        await one.append(new("c"))
        await until(lambda: len(seen.records) == 22)
        assert refused
        assert log.outage is None
        may_open.set()
        await log.append(new("d"))
        assert seen.records == await everything(log)
