"""Three brokers: the stream's leader is killed, and nothing acknowledged is lost."""

from __future__ import annotations

import asyncio

import pytest

from circuit_breaker_server.log.event_log import ExpectationFailed, Record
from circuit_breaker_server.log.jetstream import JetStreamEventLog
from tests.conformance.nats_server import NatsCluster
from tests.server.log.jetstream.log_stage import Watch, api, connected, everything, new, opened


@pytest.mark.timeout(120)
async def test_a_killed_leader_costs_no_acknowledged_record_and_doubles_none(cluster: NatsCluster) -> None:
    async def append_in_a_row(lane: int) -> None:
        last = 0
        for _ in range(12):
            record = await log.append(new(f"lane.{lane}", expected=last))
            appended.append(record)
            last = record.offset

    appended: list[Record] = []
    async with opened(cluster.url, replicas=3) as log:
        seen = Watch(log)
        async with connected(cluster.url) as client:
            leader = (await api(client, "STREAM.INFO.events"))["cluster"]["leader"]
        lanes = asyncio.gather(*map(append_in_a_row, range(32)))
        await seen.until(lambda records: len(records) >= 100)
        cluster.server(leader).kill()
        await lanes
        assert sorted(appended, key=lambda r: r.offset) == seen.records == await everything(log)
        cluster.server(leader).start()
        cluster.server(leader).wait_until_healthy()
        await log.append(new("after"))
        assert await everything(log) == seen.records
    async with opened(cluster.url) as again:
        assert await everything(again) == seen.records


async def test_two_nodes_that_write_to_one_subject_take_turns(cluster: NatsCluster) -> None:
    async def count_up(log: JetStreamEventLog) -> None:
        done = 0
        while done < 25:
            last = await log.read(after=0, subjects=("counter",))
            expected = last[-1].offset if last else 0
            (outcome,) = await asyncio.gather(
                log.append(new("counter", expected=expected)), return_exceptions=True
            )
            if isinstance(outcome, Record):
                done += 1
            else:
                assert isinstance(outcome, ExpectationFailed)
                assert outcome.actual > outcome.expected, "a refusal that is no conflict reaches no caller"
                assert log.last_offset >= outcome.actual, "the caller can decide once more"

    async with opened(cluster.url, replicas=3) as one, opened(cluster.servers[1].url) as two:
        counted = Watch(one)
        await asyncio.gather(*map(count_up, [one, two, one, two]))
        await counted.until(lambda found: len(found) >= 100)  # some of them are by the other node
        records = await everything(one)
        assert len(records) == 100
        seen = Watch(two)
        last = await one.append(new("end"))
        await seen.until(lambda found: bool(found) and found[-1] == last)
        assert await everything(two) == [*records, last]
