"""Streams that begin and end: whole for whoever subscribes, then completed."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from circuit_breaker_server.engine.cursor import Cursor
from circuit_breaker_server.engine.errors import EngineError, ErrorCode
from circuit_breaker_server.engine.events import Finite, Selection
from circuit_breaker_server.gateway.subscription_plan import Refused
from tests.server.gateway.finite_stream import LAST, follow, telling
from tests.server.gateway.worlds import ScriptedLog, assert_chained, resume_of, running, turns


@pytest.mark.parametrize("resume", [True, False])
@pytest.mark.parametrize("ring_size", [1, 1024])
async def test_it_is_whole_for_who_comes_before_in_the_middle_and_after_the_end(
    ring_size: int, resume: bool
) -> None:
    async with telling(ring_size=ring_size) as (log, gateway):
        peers = [follow(gateway, resume=resume)]
        log.begin()
        for n in range(LAST + 1):
            peers.append(follow(gateway, resume=resume))
            log.tell(n)
            if n % 4 == 0:
                await turns()
        peers.append(follow(gateway, resume=resume))
        for peer in peers:
            assert await peer.completed("1") == LAST + 1
            assert peer.numbers("1") == list(range(LAST + 1))
            if resume:
                assert_chained(peer.events("1"), peer.signals[0][1])
        assert gateway.channels == 0
        late = follow(gateway, resume=resume)
        assert await late.completed("1") == LAST + 1


async def test_a_slow_peer_gets_it_whole_and_the_end_after_the_last_event() -> None:
    async with telling(ring_size=2) as (log, gateway):
        slow = follow(gateway, room=1)
        log.begin()
        for n in range(LAST + 1):
            log.tell(n)
            await turns()
        assert "1" not in slow.completions
        while "1" not in slow.completions:
            slow.drain(room=1)
            await turns()
        assert slow.completions["1"] == LAST + 1
        assert slow.numbers("1") == list(range(LAST + 1))


@pytest.mark.parametrize("received", range(LAST + 2))
async def test_a_resume_gets_the_rest_and_the_end_even_after_the_last_event(received: int) -> None:
    async with telling() as (log, gateway):
        log.begin()
        log.tell(*range(LAST + 1))
        first = follow(gateway)
        await first.completed("1")
        cursors = [first.signals[0][1], *(resume_of(event)[0] for event in first.events("1"))]
        again = follow(gateway, after=cursors[received])
        assert await again.completed("1") == LAST + 1 - received
        assert again.numbers("1") == list(range(received, LAST + 1))


async def test_one_that_does_not_begin_in_time_ends_with_an_error_and_one_that_does_lives_on() -> None:
    async with telling(begin_seconds=0.01) as (log, gateway):
        peer = follow(gateway)
        error = await peer.failed("1")
        assert (error.message, error.code) == ("there is no story", "NOT_FOUND")
        assert gateway.channels == 0
        begun = follow(gateway)
        log.begin()
        log.tell(*range(LAST + 1))
        assert await begun.completed("1") == LAST + 1
        assert begun.failures == []


async def test_one_that_may_not_be_read_is_refused_and_leaves_no_channel_behind() -> None:
    def start() -> Cursor | None:
        raise EngineError(ErrorCode.INVALID_INPUT, "the story is not told in pieces")

    def select(_field: str, _arguments: Mapping[str, object]) -> Selection:
        return Selection(
            ("thing.s",), finite=Finite(start, lambda: False, lambda _: False, "there is no story")
        )

    async with running(ScriptedLog(), select=select) as gateway:
        with pytest.raises(Refused) as refused:
            follow(gateway)
        (error,) = refused.value.errors
        assert (error.message, error.code) == ("the story is not told in pieces", "INVALID_INPUT")
        assert gateway.channels == 0
