"""One line of the table: a figure, what bounds it, the others, and whether the target is met."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from typing import Any, final

import msgspec

__all__ = ["Row", "Scale", "at_least", "at_most", "median"]


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
    :ivar peers: by name, the same of others.
    :ivar settings: what was raised or chosen for the run.
    """

    benchmark: str
    unit: str
    ours: float
    limit: float | None = None
    peers: dict[str, float] = {}
    ratio_to_limit: float | None = None
    ratio_to_best_peer: float | None = None
    targets: dict[str, Target] = {}
    met: bool = True
    settings: dict[str, Any] = {}
    detail: dict[str, Any] = {}

    def __post_init__(self) -> None:
        """Work out what follows from the figures."""
        if self.limit:
            self.ratio_to_limit = round(self.ours / self.limit, 3)
        if self.peers:
            self.ratio_to_best_peer = round(self.ours / max(self.peers.values()), 2)

    def times(self, peer: str) -> float | None:
        """Return how many times the peer's figure ours is; ``None`` where it is not here."""
        theirs = self.peers.get(peer)
        return None if not theirs else round(self.ours / theirs, 2)

    def with_settings(self, settings: Mapping[str, Any]) -> Row:
        """Say what was raised or chosen for the run; return the row."""
        self.settings = dict(settings)
        return self

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


def median(what: Callable[[], float], runs: int) -> float:
    """Return the median of some runs, after one that does not count; a single run has none before it."""
    figures = [what() for _ in range(runs + 1 if runs > 1 else 1)]
    return statistics.median(figures[-runs:])
