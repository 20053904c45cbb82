"""How long the server's event loop is kept by what it does between two looks at its sockets."""

from __future__ import annotations

import asyncio
import contextlib
import selectors
import time
from collections import Counter
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Final, final

from benchmarks.processes import Commands, answer_commands

__all__ = ["Holds", "run_measured"]

_PER_SECOND: Final = 10_000
"""Classes of the histogram: of a tenth of a millisecond."""


@final
class Holds(selectors.DefaultSelector):
    """A selector that measures the processor time of its thread between two polls.

    It is not the time by the clock: what another process or thread does meanwhile is not the loop's doing.
    """

    def __init__(self) -> None:
        super().__init__()
        self._counts: Counter[int] = Counter()
        self._longest = 0.0
        self._since: float | None = None

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """See the base class."""
        if self._since is not None:
            held = time.thread_time() - self._since
            self._counts[int(held * _PER_SECOND)] += 1
            self._longest = max(self._longest, held)
        found = super().select(timeout)
        self._since = time.thread_time()
        return found

    def take(self) -> tuple[float, float]:
        """Return the 99th percentile and the longest since this was last asked, in seconds."""
        counts, longest = self._counts, self._longest
        self._counts, self._longest = Counter(), 0.0
        rank, seen = counts.total() * 0.99, 0
        for held in sorted(counts):
            seen += counts[held]
            if seen >= rank:
                return min((held + 1) / _PER_SECOND, longest), longest
        return 0.0, 0.0


def run_measured(
    pipe: Connection, make: Callable[[], contextlib.AbstractAsyncContextManager[Commands]]
) -> None:
    """Run an event loop that makes the commands and answers them, and ``holds`` beside them."""
    selector = Holds()

    async def serve() -> None:
        async with make() as commands:
            pipe.send(("answer", None))

            async def holds() -> tuple[float, float]:
                return selector.take()

            await answer_commands(pipe, {**commands, "holds": holds})

    with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(selector)) as runner:
        runner.run(serve())
