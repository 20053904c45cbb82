"""One timer for many: who is in time, who is not, and what is left behind."""

from __future__ import annotations

import asyncio

from circuit_breaker_sdk.subscriptions.shared_timer import Deadlines


async def test_each_is_done_in_its_time_and_those_in_time_are_left_alone() -> None:
    loop = asyncio.get_running_loop()
    deadlines = Deadlines(0.03)
    first, in_time, cancelled, last = (loop.create_future() for _ in range(4))
    began = loop.time()
    for future in (first, in_time, cancelled):
        deadlines.add(future)
    await asyncio.sleep(0.01)  # what is tested is that the last one's time begins later
    deadlines.add(last)
    last_began = loop.time()
    deadlines.discard(in_time)
    cancelled.cancel()
    await first
    assert loop.time() - began >= 0.029
    assert not last.done()
    await last
    assert loop.time() - last_began >= 0.029
    assert not in_time.done()
    assert not len(deadlines)


async def test_no_timer_runs_for_nobody() -> None:
    loop = asyncio.get_running_loop()
    deadlines = Deadlines(60.0)
    future = loop.create_future()
    deadlines.discard(future)
    deadlines.add(future)
    timer = deadlines._timer
    assert timer is not None
    deadlines.discard(future)
    assert timer.cancelled()
    deadlines.add(future)
    assert deadlines._timer is not timer
    deadlines.discard(future)
