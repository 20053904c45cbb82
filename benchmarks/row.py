"""One line of the table: a figure, what bounds it, the others, and whether the target is met."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any, final

import msgspec

__all__ = ["Rounds", "Row", "Scale", "at_least", "at_most"]


@final
class Target(msgspec.Struct, kw_only=True, frozen=True, omit_defaults=True):
    """What a figure has to be.

    :ivar measured: the figure that is compared.
    """

    measured: float | None
    at_least: float | None = None
    at_most: float | None = None
    met: bool


def at_least(bound: float, measured: float | None) -> Target:
    """Ask for a figure of at least this; one that could not be measured does not meet it."""
    return Target(measured=measured, at_least=bound, met=measured is not None and measured >= bound)


def at_most(bound: float, measured: float | None) -> Target:
    """Ask for a figure of at most this; one that could not be measured does not meet it."""
    return Target(measured=measured, at_most=bound, met=measured is not None and measured <= bound)


@final
class Row(msgspec.Struct, kw_only=True):
    """What one benchmark found.

    :ivar ours: the figure, in ``unit``.
    :ivar limit: the same without any of our code: what the machine can do.
    :ivar peers: by name, the same of others; ``times`` tells how many times theirs ours is.
    :ivar settings: what was raised or chosen for the run.
    """

    benchmark: str
    unit: str
    ours: float
    limit: float | None = None
    peers: dict[str, float] = {}
    ratio_to_limit: float | None = None
    ratio_to_best_peer: float | None = None
    times: dict[str, float] = {}
    targets: dict[str, Target] = {}
    met: bool = True
    settings: dict[str, Any] = {}
    detail: dict[str, Any] = {}

    def aim(self, targets: Mapping[str, Target]) -> Row:
        """Set the targets; return the row."""
        self.targets = dict(targets)
        self.met = all(target.met for target in targets.values())
        return self


@final
class Scale(msgspec.Struct, kw_only=True, frozen=True):
    """How much is measured.

    :ivar short: the form for a quick look and for automatic checks: its figures are not for the table.
    """

    short: bool = False

    @property
    def runs(self) -> int:
        """How many runs a median is taken of."""
        return 1 if self.short else 5

    @property
    def long_runs(self) -> int:
        """The same for what takes longer than 20 seconds."""
        return 1 if self.short else 3

    def pick(self, full: int, short: int) -> int:
        """Return the one or the other."""
        return short if self.short else full


@final
class Rounds:
    """Figures that are measured in turns, so that a machine that becomes slower does so for all of them.

    A ratio is the median of the ratios of each round, not the ratio of two medians: what is compared was
    measured seconds apart.
    """

    def __init__(self, what: Mapping[str, Callable[[], float]], rounds: int) -> None:
        """Measure each in turn, after one round that does not count; a single round has none before it."""
        self._figures: dict[str, list[float]] = {name: [] for name in what}
        for _ in range(rounds + 1 if rounds > 1 else 1):
            for name, measure in what.items():
                self._figures[name].append(measure())
        for figures in self._figures.values():
            del figures[:-rounds]

    def and_also(self, other: Rounds) -> None:
        """Take over the figures of more rounds, which were measured with processes of their own."""
        for name, figures in self._figures.items():
            figures.extend(other._figures[name])

    def median(self, name: str) -> float:
        """Return the median of one figure."""
        return statistics.median(self._figures[name])

    def ratio(self, name: str, to: str) -> float:
        """Return the median of the ratios of two."""
        return self.compare(name, to, lambda one, other: one / other)

    def compare(self, name: str, to: str, by: Callable[[float, float], float]) -> float:
        """Return the median of what ``by`` makes of the two figures of each round."""
        pairs = zip(self._figures[name], self._figures[to], strict=True)
        return statistics.median(by(one, other) for one, other in pairs)

    def row(self, benchmark: str, unit: str, *, ours: str, limit: str | None, peers: Sequence[str]) -> Row:
        """Return the row of one figure beside others."""
        there = [peer for peer in peers if peer in self._figures]
        row = Row(
            benchmark=benchmark,
            unit=unit,
            ours=round(self.median(ours)),
            limit=None if limit is None else round(self.median(limit)),
            peers={peer: round(self.median(peer)) for peer in there},
            times={peer: round(self.ratio(ours, peer), 2) for peer in there},
        )
        if limit is not None:
            row.ratio_to_limit = round(self.ratio(ours, limit), 3)
        if there:
            row.ratio_to_best_peer = min(row.times.values())
        return row
