"""Many who read from the log at once: all have one share of each round of the event loop."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from circuit_breaker_server.engine.events import StreamEvent
from circuit_breaker_server.log.event_log import Record
from circuit_breaker_server.scheduling import Gate
from tests.server.gateway import worlds
from tests.server.gateway.worlds import FakePeer, ScriptedLog, cursor_of, running
from tests.server.loop_rounds import LoopRounds
from tests.waiting import until

EVENTS = 400
SHARE_SECONDS = 0.004
RECORD_SECONDS = 0.000_1
"""So long takes each record that is read again."""


def slowly(clock: LoopRounds) -> Callable[[Record], Sequence[StreamEvent]]:
    """Derive events as ever, and let each record take its time."""

    def derive(record: Record) -> Sequence[StreamEvent]:
        clock.work(RECORD_SECONDS)
        return worlds.derive(record)

    return derive


@pytest.mark.parametrize("same_socket", [True, False])
async def test_however_many_resume_at_once_the_loop_is_held_for_one_share(same_socket: bool) -> None:
    log, clock = ScriptedLog(), LoopRounds()
    async with running(log, ring_size=4, derive=slowly(clock)) as gateway:
        gateway.catch_up_gate = Gate(seconds=SHARE_SECONDS, at_once=1, clock=clock.read)
        for n in range(EVENTS):
            log.thing("a", n)
        peers = [FakePeer(gateway) for _ in range(1 if same_socket else 20)]
        names = [str(number) for number in range(20 // len(peers))]
        for peer in peers:
            for name in names:
                peer.subscribe(name, after=cursor_of(log, 1, 2))
        await until(lambda: all(peer.numbers(name)[-1:] == [EVENTS - 1] for peer in peers for name in names))
        clock.stop()
        assert all(peer.numbers(name) == list(range(1, EVENTS)) for peer in peers for name in names)
        assert sum(clock.rounds) >= 20 * (EVENTS - 1) * RECORD_SECONDS
        share_and_a_write = SHARE_SECONDS + 256 * RECORD_SECONDS
        assert max(clock.rounds) <= share_and_a_write


async def test_those_who_catch_up_advance_side_by_side() -> None:
    log, clock = ScriptedLog(), LoopRounds()
    async with running(log, ring_size=4, page_records=10_000, derive=slowly(clock)) as gateway:
        gateway.catch_up_gate = Gate(seconds=SHARE_SECONDS, at_once=1, clock=clock.read)
        for n in range(2_000):
            log.thing("a", n)
        peers = [FakePeer(gateway) for _ in range(5)]
        for peer in peers:
            peer.subscribe("1", after=cursor_of(log, 1, 2))
        await until(lambda: peers[0].numbers("1")[-1:] == [1_999])
        clock.stop()
        assert min(len(peer.numbers("1")) for peer in peers) > 1_500
