"""Snapshots: chunks, bases and deltas, two writers, and what a half-written one does."""

from __future__ import annotations

import os

import pytest

from circuit_breaker_server.log.event_log import LogWriteError, SnapshotEntry
from circuit_breaker_server.log.jetstream import snapshots
from tests.conformance.nats_server import NatsServer
from tests.server.log.jetstream.log_stage import api, connected, everything, new, opened
from tests.waiting import until


def entry(key: str, data: bytes | None) -> SnapshotEntry:
    return SnapshotEntry(key=key, data=data)


async def test_a_big_snapshot_is_cut_into_chunks(server: NatsServer) -> None:
    body = os.urandom(3 * snapshots.CHUNK_BYTES + 5)
    async with opened(server.url) as log, connected(server.url) as client:
        await log.append(new())
        await log.save_snapshot(1, [entry("big", body), entry("small", b"1")])
        state = (await api(client, "STREAM.INFO.events-state"))["state"]
        assert state["messages"] == 4
        assert (await log.load_snapshot()).entries == {"big": body, "small": b"1"}
    async with opened(server.url) as log:
        assert (await log.load_snapshot()).entries == {"big": body, "small": b"1"}


async def test_the_two_newest_bases_are_kept_with_what_follows_them(
    server: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshots, "_MAX_DELTAS", 2)
    wanted: dict[str, bytes] = {}
    async with opened(server.url) as log, connected(server.url) as client:
        for i in range(20):
            record = await log.append(new())
            wanted[f"k{i % 7}"] = str(i).encode()
            await log.save_snapshot(record.offset, [entry(f"k{i % 7}", str(i).encode())])
            state = (await api(client, "STREAM.INFO.events-state"))["state"]
            assert state["messages"] <= 6
        snapshot = await log.load_snapshot()
        assert (snapshot.offset, snapshot.entries) == (20, wanted)
    async with opened(server.url) as log:
        assert await log.load_snapshot() == snapshot


async def test_a_snapshot_without_its_last_chunk_was_never_written(server: NatsServer) -> None:
    async with opened(server.url) as log, connected(server.url) as client:
        await log.append(new())
        await log.save_snapshot(1, [entry("a", b"1")])
        headers = {"Cb-Image": "0" * 16, "Cb-Follows": "", "Cb-Part": "0"}
        await client.jetstream().publish("events-state.snapshot", b"half", headers=headers)
        snapshot = await log.load_snapshot()
        assert (snapshot.offset, snapshot.entries) == (1, {"a": b"1"})
        await log.save_snapshot(1, [entry("b", b"2")])
    async with opened(server.url) as log:
        assert (await log.load_snapshot()).entries == {"a": b"1", "b": b"2"}


async def test_of_two_nodes_the_one_that_has_not_seen_the_others_snapshot_fails(server: NatsServer) -> None:
    async with opened(server.url) as one, opened(server.url) as two:
        record = await one.append(new())
        await two.append(new())
        await one.save_snapshot(record.offset, [])
        await two.load_snapshot()
        await one.save_snapshot(record.offset, [entry("a", b"one")])
        with pytest.raises(LogWriteError):
            await two.save_snapshot(record.offset, [entry("a", b"two")])
        assert (await one.load_snapshot()).entries == {"a": b"one"}
        await two.save_snapshot(record.offset, [entry("b", b"two")])
        assert (await one.load_snapshot()).entries == {"a": b"one", "b": b"two"}
        await one.save_snapshot(record.offset, [entry("c", b"one")])
        assert (await two.load_snapshot()).entries == {"a": b"one", "b": b"two", "c": b"one"}


async def test_a_node_notices_what_another_one_has_trimmed(server: NatsServer) -> None:
    async with opened(server.url) as one, opened(server.url) as two:
        records = [await one.append(new(name)) for name in "abc"]
        await one.save_snapshot(3, [])
        await one.trim(3)
        assert await two.read(after=0, subjects=("a", "c")) == records[2:]
        assert two.first_offset == 3
        assert await two.last_removed() == records[1]
        assert await two.check(2) == records[1].check
        again = await two.append(new("a", expected=1))
        await until(lambda: one.last_offset == again.offset)
        assert await everything(one) == [records[2], again]


async def test_a_node_that_has_not_noticed_a_trim_appends_to_what_was_trimmed(server: NatsServer) -> None:
    async with opened(server.url) as one, opened(server.url) as two:
        records = [await one.append(new(name)) for name in "abc"]
        await one.save_snapshot(3, [])
        await one.trim(4)
        assert two.first_offset == 1
        again = await two.append(new("a", expected=records[0].offset))
        assert (again.offset, two.first_offset) == (4, 4)
