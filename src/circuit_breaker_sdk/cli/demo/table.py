"""Draw the demo's table: what each operation receives, how fast, and what came last."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, final

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from circuit_breaker_sdk.cli.demo.judge import Verdict
from circuit_breaker_sdk.cli.demo.tally import Latency, Mutations, Tally

__all__ = ["RateMeter", "Row", "View", "demo_view", "events_table", "mutations_text", "verdict_text"]

_RATE_WINDOW_SECONDS = 3.0


@final
@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table.

    :ivar rate: events per second.
    :ivar latency: ``None`` where there is none yet.
    """

    tally: Tally
    rate: float
    latency: Latency | None


class View(Protocol):
    """Draws a demo."""

    def __call__(
        self, rows: Sequence[Row], *, title: str, mutations: Mutations, verdict: Verdict | None
    ) -> RenderableType:
        """Draw it; ``verdict`` is ``None`` while it runs."""
        ...


@final
class RateMeter:
    """Tell events per second over the last three seconds from a count that is read now and then.

    :param now: seconds of a monotonic clock.
    """

    def __init__(self, now: Callable[[], float] = time.perf_counter) -> None:
        self._now = now
        self._readings: deque[tuple[float, int]] = deque([(now(), 0)])

    def read(self, count: int) -> float:
        """Take a reading of the count and return the rate."""
        now = self._now()
        self._readings.append((now, count))
        while len(self._readings) > 2 and self._readings[0][0] < now - _RATE_WINDOW_SECONDS:
            self._readings.popleft()
        then, before = self._readings[0]
        return (count - before) / (now - then) if now > then else 0.0


def demo_view(
    rows: Sequence[Row], *, title: str, mutations: Mutations, verdict: Verdict | None
) -> RenderableType:
    """Draw the table and the lines below it.

    :param verdict: what the judge found, ``None`` while runs are in flight.
    """
    table = events_table(rows, title=title)
    counts = mutations_text(mutations)
    if verdict is None:
        return Group(table, counts)
    return Group(
        table, counts, Text(verdict_text(verdict), style="green" if verdict.is_clean else "bold red")
    )


def events_table(rows: Sequence[Row], *, title: str, nodes: Mapping[str, str] | None = None) -> Table:
    """Draw a line for each operation.

    :param nodes: by operation, the node that its last event came from: a column more.
    """
    table = Table(title=title, title_justify="left", expand=True)
    table.add_column("operation", no_wrap=True)
    table.add_column("events", justify="right", no_wrap=True)
    table.add_column("events/s", justify="right", no_wrap=True)
    table.add_column("p50 ms", justify="right", no_wrap=True)
    table.add_column("p99 ms", justify="right", no_wrap=True)
    if nodes is not None:
        table.add_column("node", no_wrap=True)
    table.add_column("last event", ratio=1, no_wrap=True, overflow="ellipsis")
    for row in rows:
        p50, p99 = (f"{row.latency.p50_ms:.2f}", f"{row.latency.p99_ms:.2f}") if row.latency else ("-", "-")
        # Text, not markup: an event's words may hold square brackets.
        last = Text(row.tally.last_event)
        node = () if nodes is None else (nodes.get(row.tally.operation, "-"),)
        cells = (row.tally.operation, f"{row.tally.events:,}", f"{row.rate:,.0f}", p50, p99)
        table.add_row(*cells, *node, last)
    return table


def mutations_text(mutations: Mutations) -> Text:
    """Say how many mutations there were."""
    return Text(f"{mutations.accepted:,} mutations accepted, {mutations.refused:,} refused as the rules say")


def verdict_text(verdict: Verdict) -> str:
    """Put the judge's verdict into one sentence."""
    if verdict.is_clean:
        return "no event was lost, duplicated or reordered"
    return (
        f"events lost: {verdict.lost}, duplicated: {verdict.duplicated}, reordered: {verdict.reordered}; "
        "judged against what the mutations returned"
    )
