"""Count events and latencies of one operation."""

from __future__ import annotations

import math
from array import array
from dataclasses import dataclass, field
from typing import final

__all__ = ["Latency", "Mutations", "Tally"]

_RECENT = 1_000


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Latency:
    """Two percentiles (nearest rank) in milliseconds."""

    p50_ms: float
    p99_ms: float


@final
@dataclass(slots=True)
class Mutations:
    """Numbers of mutations that the server accepted, and that it refused as it should."""

    accepted: int = 0
    refused: int = 0


@final
@dataclass(slots=True, kw_only=True)
class Tally:
    """Events that one operation has received so far.

    :ivar operation: its name, for example ``workflows.resourceUpdates``.
    :ivar last_event: the newest event in words, empty before the first.

    Example::

        tally = Tally(operation="workflows.resourceUpdates")
        tally.count("doc-1 → approved")
        tally.time(0.002)
    """

    operation: str
    events: int = 0
    last_event: str = ""
    # Eight bytes an event: an hour of the demo is about ten megabytes.
    _latencies_ms: array[float] = field(default_factory=lambda: array("d"))

    def count(self, event: str) -> None:
        """Count an event."""
        self.events += 1
        self.last_event = event

    def time(self, latency_seconds: float) -> None:
        """Add the latency of an event."""
        self._latencies_ms.append(latency_seconds * 1_000)

    def latency(self) -> Latency | None:
        """Tell the percentiles over all events, ``None`` without one."""
        return _percentiles(sorted(self._latencies_ms))

    def recent_latency(self) -> Latency | None:
        """Tell the percentiles over the newest thousand events, ``None`` without one."""
        return _percentiles(sorted(self._latencies_ms[-_RECENT:]))


def _percentiles(ordered: list[float]) -> Latency | None:
    if not ordered:
        return None
    return Latency(p50_ms=_rank(ordered, 0.50), p99_ms=_rank(ordered, 0.99))


def _rank(ordered: list[float], share: float) -> float:
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]
