"""A pool that is shared: nobody takes all of it, and those that wait take turns."""

from __future__ import annotations

import asyncio
import contextlib
from collections import OrderedDict
from collections.abc import AsyncIterator, Iterator
from typing import final

import pytest

from circuit_breaker_server.engine.errors import EngineError, ErrorCode
from circuit_breaker_server.engine.fair_pool import NO_PRINCIPAL, FairPool
from tests.server.counted_futures import count_comparisons


@final
class Workers:
    """Tasks that hold slots until each is told to end."""

    def __init__(self, pool: FairPool) -> None:
        self.pool = pool
        self.running: list[str] = []
        self._ends: dict[str, asyncio.Event] = {}
        self.tasks: dict[str, asyncio.Task[None]] = {}

    async def start(self, *names: str) -> None:
        """Start workers; the key of ``a1`` is ``a``, and of ``1`` nobody."""
        for name in names:
            self._ends[name] = asyncio.Event()
            self.tasks[name] = asyncio.create_task(self._work(name))
        await self._settle()

    async def _work(self, name: str) -> None:
        async with self.pool.slot(name.rstrip("0123456789")):
            self.running.append(name)
            try:
                await self._ends[name].wait()
            finally:
                self.running.remove(name)

    async def end(self, *names: str) -> None:
        for name in names:
            self._ends[name].set()
        await self._settle()

    async def cancel(self, name: str) -> None:
        self.tasks[name].cancel()
        await asyncio.wait((self.tasks[name],))
        await self._settle()

    @staticmethod
    async def _settle() -> None:
        for _ in range(8):
            await asyncio.sleep(0)


@contextlib.asynccontextmanager
async def workers(pool: FairPool) -> AsyncIterator[Workers]:
    made = Workers(pool)
    try:
        yield made
    finally:
        for task in made.tasks.values():
            task.cancel()
        if made.tasks:
            await asyncio.wait(made.tasks.values())


async def test_a_key_with_its_share_waits_while_a_newcomer_is_served() -> None:
    async with workers(FairPool("checks", slots=4, share=2)) as work:
        await work.start("a1", "a2", "a3", "a4")
        assert work.running == ["a1", "a2"]
        await work.start("b1")
        assert work.running == ["a1", "a2", "b1"]
        await work.end("a1")
        assert work.running == ["a2", "b1", "a3"]


async def test_those_that_wait_are_served_one_of_each_key_in_turn() -> None:
    async with workers(FairPool("checks", slots=2, share=2)) as work:
        await work.start("a1", "a2", "a3", "a4", "b1", "b2", "c1")
        served = []
        for name in ("a1", "a2", "a3", "b1"):
            before = set(work.running)
            await work.end(name)
            served += sorted(set(work.running) - before)
        assert served == ["a3", "b1", "c1", "a4"]


async def test_callers_who_are_not_known_may_have_every_slot() -> None:
    async with workers(FairPool("checks", slots=3, share=1)) as work:
        assert NO_PRINCIPAL == ""
        await work.start("1", "2", "3", "4")
        assert work.running == ["1", "2", "3"]


async def test_one_that_is_cancelled_while_it_waits_holds_nothing() -> None:
    async with workers(FairPool("checks", slots=1, share=1)) as work:
        await work.start("a1", "a2", "b1")
        await work.cancel("a2")
        await work.end("a1")
        assert work.running == ["b1"]


async def test_a_turn_that_comes_in_the_moment_of_a_cancellation_is_passed_on() -> None:
    pool, end = FairPool("checks", slots=1, share=1), asyncio.Event()
    async with workers(pool) as work:

        async def hand_over() -> None:
            async with pool.slot("a"):
                await end.wait()
            work.tasks["b1"].cancel()  # its turn has come, and it has not run since

        handing = asyncio.create_task(hand_over())
        await asyncio.sleep(0)
        await work.start("b1", "c1")
        end.set()
        await handing
        await asyncio.wait((work.tasks["b1"],))
        await work.start("d1")
        assert work.running == ["c1"]
        await work.end("c1")
        assert work.running == ["d1"]


async def test_one_more_than_may_wait_is_refused() -> None:
    async with workers(FairPool("checks", slots=1, share=1, max_waiting=1)) as work:
        await work.start("a1", "a2")
        with pytest.raises(EngineError, match="1 checks of yours wait") as refused:
            async with work.pool.slot("a"):
                pass
        assert refused.value.code is ErrorCode.RATE_LIMITED
        assert refused.value.facts["retryAfter"] == 1.0
        await work.start("b1")
        await work.end("a1")
        await work.end("a2")
        assert work.running == ["b1"]


async def test_one_that_has_waited_too_long_is_refused_and_holds_nothing() -> None:
    async with workers(FairPool("checks", slots=1, share=1, wait_seconds=1e-6)) as work:
        await work.start("a1")
        with pytest.raises(EngineError, match="no turn within 1e-06 s") as refused:
            async with work.pool.slot("b"):
                pass
        assert refused.value.code is ErrorCode.RATE_LIMITED
        await work.end("a1")
        await work.start("c1")
        assert work.running == ["c1"]


async def test_leaving_takes_no_look_at_the_others_that_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    futures = count_comparisons(monkeypatch)
    async with workers(FairPool("checks", slots=1, share=1)) as work:
        names = [f"a{number}" for number in range(200)]
        await work.start(*names)
        for name in reversed(names[1:]):
            work.tasks[name].cancel()
        await asyncio.wait([work.tasks[name] for name in names[1:]])
        assert work.pool.waiting("a") == 0
        assert futures.comparisons <= len(names)


@final
class _CountedKeys(OrderedDict[str, "OrderedDict[asyncio.Future[None], None]"]):
    """Queues by key that count the keys that are looked at."""

    seen = 0

    def __iter__(self) -> Iterator[str]:
        for key in super().__iter__():
            self.seen += 1
            yield key


async def test_the_next_turn_is_found_without_a_look_at_every_key_that_waits() -> None:
    pool = FairPool("checks", slots=2, share=1)
    pool._queues = queues = _CountedKeys()
    async with workers(pool) as work:
        names = [f"{chr(number)}1" for number in range(0x4E00, 0x4E00 + 200)]
        await work.start(*names)
        for name in names:
            await work.end(name)
        assert not work.running
        assert queues.seen <= 3 * len(names)
