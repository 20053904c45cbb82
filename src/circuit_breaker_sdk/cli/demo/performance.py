"""Perform a demo: subscribe, let its courses lead their mutations, wait for what is owed, judge."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager, suppress
from typing import final

from circuit_breaker_sdk import Client
from circuit_breaker_sdk.cli.demo.demo_part import Course, Stage
from circuit_breaker_sdk.cli.demo.judge import Verdict
from circuit_breaker_sdk.cli.demo.ledger import Ledger
from circuit_breaker_sdk.cli.demo.screen import Screen
from circuit_breaker_sdk.cli.runtime import settle_memory
from circuit_breaker_sdk.errors import CircuitBreakerError

__all__ = ["Performance", "side_by_side"]

# After the last event that is owed: time for one that is not.
_STRAY_SECONDS = 0.2


@final
class Performance:
    """A demo from its first subscription to its verdict.

    :param settle_seconds: how long events that are owed may take after the last mutation.
    """

    def __init__(
        self,
        client: Client,
        stop: asyncio.Event,
        ledger: Ledger,
        screen: Screen,
        *,
        settle_seconds: float = 5.0,
    ) -> None:
        self._client = client
        self._stop = stop
        self._ledger = ledger
        self._screen = screen
        self._settle_seconds = settle_seconds

    async def run(self, courses_on: Callable[[Stage], Sequence[Course]], *, seconds: float | None) -> Verdict:
        """Lead the courses for some seconds, or until the event is set, and judge what came of it.

        :param courses_on: makes the courses.
        """
        ledger, screen = self._ledger, self._screen
        verdict = None
        async with AsyncExitStack() as subscriptions:
            stage = Stage(self._client, ledger, self._stop, subscriptions)
            courses = courses_on(stage)
            # The first request loads what requests need: no latency is to have that in it.
            await self._client.server_health()
            settle_memory()
            for course in courses:
                await course.prepare()
            settle_memory()
            ledger.on_first_event = screen.first_event
            screen.start()
            try:
                with _set_after(seconds, self._stop):
                    await side_by_side(course.lead() for course in courses)
                await self._settle()
                if stage.failed is not None:
                    raise stage.failed
                verdict = ledger.judge.verdict()
            finally:
                screen.close(verdict)
        return verdict

    async def _settle(self) -> None:
        """Give what is owed time to arrive, then what is not owed a moment to show itself."""
        with suppress(TimeoutError):
            async with asyncio.timeout(self._settle_seconds):
                await self._ledger.settled()
        await asyncio.sleep(_STRAY_SECONDS)


async def side_by_side(works: Iterable[Coroutine[object, object, None]]) -> None:
    """Run all side by side to their ends; raise the first error, and cancel the others."""
    try:
        async with asyncio.TaskGroup() as group:
            for work in works:
                group.create_task(work)
    except* CircuitBreakerError as failed:
        # One line on the terminal: the first says it, the others are its echo.
        first: BaseException = failed
        while isinstance(first, BaseExceptionGroup):
            first = first.exceptions[0]
        raise first from None


@contextmanager
def _set_after(seconds: float | None, event: asyncio.Event) -> Iterator[None]:
    """Set the event after some seconds, unless the block is left before; ``None`` for never."""
    timer = None if seconds is None else asyncio.get_running_loop().call_later(seconds, event.set)
    try:
        yield
    finally:
        if timer is not None:
            timer.cancel()
