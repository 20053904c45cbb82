"""What an experiment found."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import final

import msgspec

__all__ = ["LeftOut", "Result", "percentiles"]


class Milliseconds(msgspec.Struct, frozen=True):
    """Two percentiles; ``None`` where nothing was measured."""

    p50: float | None
    p99: float | None


def percentiles(seconds: Sequence[float]) -> Milliseconds:
    """Return the median and the 99th percentile, in milliseconds."""
    if not seconds:
        return Milliseconds(None, None)
    ordered = sorted(seconds)
    p99 = ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))]
    return Milliseconds(round(statistics.median(ordered) * 1000, 1), round(p99 * 1000, 1))


@final
class LeftOut(msgspec.Struct, frozen=True, kw_only=True):
    """The line of an experiment that was not run, and why not."""

    experiment: str
    left_out: str


@final
class Result(msgspec.Struct, kw_only=True):
    """One line of ``make chaos``.

    :ivar events: acknowledged by the server to the publisher.
    :ivar lost: acknowledged, and not delivered to a subscriber that was promised it; for each subscriber.
    :ivar duplicated: delivered to one subscriber more than once.
    :ivar reordered: delivered behind an event that came after it.
    :ivar gaps_signalled: explicit gaps.
    :ivar recovery_ms: from a fault to the next event of each subscriber that it hit.
    :ivar detail: what else the experiment measured, with its bounds.
    :ivar failures: why it did not pass.
    """

    experiment: str
    events: int = 0
    lost: int = 0
    duplicated: int = 0
    reordered: int = 0
    gaps_signalled: int = 0
    recovery_ms: Milliseconds = Milliseconds(None, None)
    passed: bool = False
    seed: int = 0
    detail: dict[str, object] = msgspec.field(default_factory=dict)
    failures: list[str] = msgspec.field(default_factory=list)

    def require(self, condition: object, otherwise: str) -> None:
        """Note a failure unless the condition holds."""
        if not condition:
            self.failures.append(otherwise)

    def require_zeros(self) -> None:
        """Require that nothing was lost, doubled or reordered, and that something was published at all."""
        self.require(self.events, "nothing was published")
        for name in ("lost", "duplicated", "reordered"):
            count = getattr(self, name)
            self.require(not count, f"{count} {name}")
