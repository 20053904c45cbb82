"""How long the server's event loop is kept by what it does between two looks at its sockets."""

from __future__ import annotations

import mmap
import selectors
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Final, NamedTuple, final

__all__ = ["Held", "Holds", "held_in", "histogram_in"]

_PER_SECOND: Final = 10_000
"""Classes of the histogram: of a tenth of a millisecond."""
_CLASSES: Final = 1 << 14
"""So many; the last one is of 1.6 seconds and more."""


class Held(NamedTuple):
    """How long the loop was held, in seconds: the end of the class, and what was longest."""

    p99: float
    longest: float


@final
class Holds(selectors.DefaultSelector):
    """A selector that measures the processor time of its thread between two polls.

    It is not the time by the clock: what another process or thread does meanwhile is not the loop's doing.

    :ivar counts: how often, by tenths of a millisecond; nothing is counted before it is given.
    """

    def __init__(self, counts: memoryview | None = None) -> None:
        super().__init__()
        self.counts = counts
        self._since: float | None = None

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """See the base class."""
        counts = self.counts
        if counts is not None and self._since is not None:
            held = time.thread_time() - self._since
            counts[min(int(held * _PER_SECOND), _CLASSES - 1)] += 1
        found = super().select(timeout)
        self._since = None if counts is None else time.thread_time()
        return found

    def take(self) -> Held:
        """Return what was counted since this was last asked."""
        if self.counts is None:
            return Held(0.0, 0.0)
        held = held_in([self.counts])
        self.counts[:] = memoryview(bytes(8 * _CLASSES)).cast("Q")
        return held


def histogram_in(path: Path | None = None) -> memoryview:
    """Return counts for :class:`Holds`; in a file they outlive the process, however it ends."""
    size = 8 * _CLASSES
    if path is None:
        return memoryview(bytearray(size)).cast("Q")
    with path.open("a+b") as file:
        file.truncate(size)
        return memoryview(mmap.mmap(file.fileno(), size)).cast("Q")


def held_in(histograms: Iterable[memoryview]) -> Held:
    """Return what several processes have counted together."""
    counts = [sum(each) for each in zip(*histograms, strict=True)]
    rank, seen, p99, longest = sum(counts) * 0.99, 0, 0, 0
    for class_, count in enumerate(counts):
        if count:
            p99 = class_ + 1 if seen < rank else p99
            longest = class_ + 1
            seen += count
    return Held(p99 / _PER_SECOND, longest / _PER_SECOND)
