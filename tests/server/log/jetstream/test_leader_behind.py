"""The stream's leader may be some milliseconds behind a replica that has delivered a record already."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any, cast

import pytest

from circuit_breaker_server.log.event_log import LogError, Record
from circuit_breaker_server.log.jetstream import kept_records, reads
from circuit_breaker_server.log.jetstream.broker import Broker
from circuit_breaker_server.log.jetstream.errors import NOT_FOUND, ApiError, BrokerUnavailable
from circuit_breaker_server.log.jetstream.kept_records import KeptRecords
from circuit_breaker_server.log.jetstream.reads import Reader
from circuit_breaker_server.log.jetstream.recent import RecentRecords
from circuit_breaker_server.log.jetstream.stream import Streams
from tests.waiting import until


class Leader:
    """Answers as the leader of a stream, which learns of the records one at a time.

    :ivar last: the offset of the last record that it has.
    :ivar learns: how many more it has after each answer about its state.
    :ivar active_ns: when it has heard of its replicas last.
    """

    def __init__(self, last: int, *, learns: int = 0) -> None:
        self.last = last
        self.learns = learns
        self.active_ns = 300_000_000
        self.asked = 0
        self.before_answer: Callable[[], object] = lambda: None

    async def api_patiently(
        self, name: str, body: Mapping[str, object], *, patience_seconds: float
    ) -> dict[str, Any]:
        await asyncio.sleep(0)
        self.before_answer()
        if name.startswith("STREAM.MSG.GET"):
            wanted = cast("int", body["seq"])
            if wanted > self.last:
                raise ApiError(NOT_FOUND, 10037, "no message found")
            return {"message": {"seq": wanted}}
        self.asked += 1
        state = {"first_seq": 1, "last_seq": self.last, "messages": self.last}
        self.last += self.learns
        replicas = [{"name": name, "active": self.active_ns} for name in ("n1", "n2")]
        return {"state": state, "config": {}, "cluster": {"leader": "n0", "replicas": replicas}}

    async def pause(self, _seconds: float) -> None:
        await asyncio.sleep(0)

    def streams(self) -> Streams:
        streams = Streams(cast("Broker", self), "events")
        streams.replicas = 3
        return streams


def record(offset: int) -> Record:
    return Record(offset=offset, subject="a", id=f"{offset:032x}", time_ms=0, data=b"{}")


def kept(leader: Leader, recent: RecentRecords) -> KeptRecords:
    unused: Any = None
    return KeptRecords(
        unused, leader.streams(), recent, unused, unused, patience_seconds=1, refuse_if_closed=lambda: None
    )


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_records, "_LOOK_SECONDS", 0.001)
    monkeypatch.setattr(kept_records, "_SHORT_SECONDS", 0.05)


async def test_an_offset_that_the_leader_has_not_yet_is_waited_for() -> None:
    leader, recent = Leader(6), RecentRecords(first_offset=1, last_offset=6)

    def deliver_late() -> None:
        if leader.asked == 2:
            recent.add([record(7)], 7)
            recent.wake()

    leader.before_answer = deliver_late
    assert await kept(leader, recent).reaches(7)


async def test_a_leader_that_has_it_later_is_believed_then() -> None:
    leader, recent = Leader(5, learns=1), RecentRecords(first_offset=1, last_offset=5)
    asked = asyncio.create_task(kept(leader, recent).reaches(7))
    await until(lambda: leader.asked == 3)
    assert not asked.done(), "the tail is waited for"
    recent.add([record(6), record(7)], 7)
    recent.wake()
    assert await asked


async def test_that_the_log_does_not_come_so_far_is_said_only_when_the_leader_has_said_so_for_a_while() -> (
    None
):
    leader, recent = Leader(6), RecentRecords(first_offset=1, last_offset=6)
    assert not await kept(leader, recent).reaches(7)
    assert leader.asked > 1


async def test_very_many_who_want_to_know_share_the_answers() -> None:
    leader, recent = Leader(6), RecentRecords(first_offset=1, last_offset=6)
    of = kept(leader, recent)
    found = await asyncio.gather(*(of.reaches(7 + n) for n in range(500)))
    assert not any(found)
    assert leader.asked < 250, "not one for each look of each"
    assert len(recent._waiting) < 500, "who has gone is forgotten"


async def test_a_leader_that_hears_of_no_replica_says_nothing_about_the_end() -> None:
    leader, recent = Leader(6), RecentRecords(first_offset=1, last_offset=6)
    leader.active_ns = 4_000_000_000
    with pytest.raises(LogError, match="cut off from the others"):
        await kept(leader, recent).reaches(7)


async def test_a_message_that_is_no_record_is_not_waited_for() -> None:
    leader, recent = Leader(7), RecentRecords(first_offset=1, last_offset=7, last_record=6)
    assert not await kept(leader, recent).reaches(7)
    assert not leader.asked


async def test_a_message_that_the_leader_has_not_yet_is_asked_for_again() -> None:
    leader = Leader(5, learns=1)
    found = await leader.streams().message_of_records({"seq": 7}, known=7, patience_seconds=1)
    assert found == {"seq": 7}


async def test_that_there_is_no_message_is_believed_of_a_leader_that_has_come_so_far() -> None:
    leader = Leader(7)
    assert await leader.streams().message_of_records({"seq": 8}, known=7, patience_seconds=1) is None


async def test_a_leader_that_stays_behind_is_told() -> None:
    with pytest.raises(BrokerUnavailable, match="the leader of events is behind"):
        await Leader(6).streams().message_of_records({"seq": 7}, known=7, patience_seconds=0.02)


async def test_a_page_does_not_end_before_what_the_leader_has_not_yet(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    leader = Leader(6, learns=1)
    reader = Reader(cast("Broker", leader), leader.streams(), patience_seconds=1)

    async def ask(query: dict[str, object]) -> tuple[list[object], bool]:
        """A replica that is behind as well, for as long."""
        assert query["seq"] == 7
        message = SimpleNamespace(headers={"Nats-Sequence": "7"})
        return ([message] if leader.last >= 7 else []), True

    monkeypatch.setattr(reader, "_ask", ask)
    monkeypatch.setattr(reads, "record_from_direct_get", lambda _message, _prefix: record(7))
    page = await reader.page((">",), after=6, upto=7, limit=10, max_bytes=1000)
    assert (page.records, page.reached) == ([record(7)], 7)
