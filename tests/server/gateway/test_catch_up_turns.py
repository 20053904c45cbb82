"""Many who read from the log at once: all have one share of each round of the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from circuit_breaker_server.engine.events import StreamEvent
from circuit_breaker_server.log.event_log import Record
from circuit_breaker_server.scheduling import Gate
from tests.server.gateway import worlds
from tests.server.gateway.worlds import FakePeer, ScriptedLog, cursor_of, running
from tests.waiting import until

EVENTS = 400
SHARE_SECONDS = 0.004
RECORD_SECONDS = 0.000_1
"""So long takes each record that is read again."""


class Work:
    """A clock that moves only by work, and how far it moved in each round of the loop."""

    def __init__(self) -> None:
        self.now = 0.0
        self.rounds: list[float] = []
        self._round_began = 0.0
        self._loop = asyncio.get_running_loop()
        self._next = self._loop.call_soon(self._round)

    def read(self) -> float:
        return self.now

    def derive(self, record: Record) -> Sequence[StreamEvent]:
        self.now += RECORD_SECONDS
        return worlds.derive(record)

    def _round(self) -> None:
        self.rounds.append(self.now - self._round_began)
        self._round_began = self.now
        self._next = self._loop.call_soon(self._round)

    def stop(self) -> None:
        self._next.cancel()


@pytest.mark.parametrize("same_socket", [True, False])
async def test_however_many_resume_at_once_the_loop_is_held_for_one_share(same_socket: bool) -> None:
    log, work = ScriptedLog(), Work()
    async with running(log, ring_size=4, derive=work.derive) as gateway:
        gateway.catch_up_gate = Gate(seconds=SHARE_SECONDS, at_once=1, clock=work.read)
        for n in range(EVENTS):
            log.thing("a", n)
        peers = [FakePeer(gateway) for _ in range(1 if same_socket else 20)]
        names = [str(number) for number in range(20 // len(peers))]
        for peer in peers:
            for name in names:
                peer.subscribe(name, after=cursor_of(log, 1, 2))
        await until(lambda: all(peer.numbers(name)[-1:] == [EVENTS - 1] for peer in peers for name in names))
        work.stop()
        assert all(peer.numbers(name) == list(range(1, EVENTS)) for peer in peers for name in names)
        assert sum(work.rounds) >= 20 * (EVENTS - 1) * RECORD_SECONDS
        share_and_a_write = SHARE_SECONDS + 256 * RECORD_SECONDS
        assert max(work.rounds) <= share_and_a_write


async def test_those_who_catch_up_advance_side_by_side() -> None:
    log, work = ScriptedLog(), Work()
    async with running(log, ring_size=4, page_records=10_000, derive=work.derive) as gateway:
        gateway.catch_up_gate = Gate(seconds=SHARE_SECONDS, at_once=1, clock=work.read)
        for n in range(2_000):
            log.thing("a", n)
        peers = [FakePeer(gateway) for _ in range(5)]
        for peer in peers:
            peer.subscribe("1", after=cursor_of(log, 1, 2))
        await until(lambda: peers[0].numbers("1")[-1:] == [1_999])
        work.stop()
        assert min(len(peer.numbers("1")) for peer in peers) > 1_500
