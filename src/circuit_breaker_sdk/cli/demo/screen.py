"""Show the demo while it runs: a live table on a terminal, a line a second anywhere else."""

from __future__ import annotations

import asyncio
import sys
from typing import final

from rich.console import Console, RenderableType
from rich.live import Live

from circuit_breaker_sdk.cli.demo.judge import Verdict
from circuit_breaker_sdk.cli.demo.ledger import Ledger
from circuit_breaker_sdk.cli.demo.table import RateMeter, Row, View, demo_view
from circuit_breaker_sdk.cli.runtime import print_marker

__all__ = ["Screen"]

# Drawing takes a few milliseconds of the loop that also serves and receives: not too often.
_DRAW_SECONDS = 0.25
_LINE_SECONDS = 1.0


@final
class Screen:
    """Draw the ledger now and then, on the loop's timer.

    :param started_at: when the command began, by the loop's clock.
    :param stdout_is_free: whether stdout may hold the table; where it is kept for the result, the table
        goes to stderr.
    :param view: draws the picture.
    """

    def __init__(
        self,
        ledger: Ledger,
        *,
        title: str,
        started_at: float,
        stdout_is_free: bool,
        view: View = demo_view,
    ) -> None:
        self._ledger = ledger
        self._view = view
        self._title = title
        self._started_at = started_at
        self._stdout_is_free = stdout_is_free
        self._meters = [RateMeter() for _ in ledger.tallies]
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        on_stdout = stdout_is_free and sys.stdout.isatty()
        console = Console(stderr=not on_stdout)
        # Without rich's own refresh, which would be a thread.
        self._live = Live(console=console, auto_refresh=False) if console.is_terminal else None

    def start(self) -> None:
        """Draw the first picture, and the next ones until :meth:`close`."""
        if self._live is not None:
            self._live.start()
        self._tick()

    def tell(self, name: str, text: str) -> None:
        """Write a line about the course of events, where there is no picture that shows it."""
        if self._live is None:
            print_marker(name, text)

    def first_event(self) -> None:
        """Show at once that the first event is there, and how long that took."""
        if self._live is None:
            seconds = self._loop.time() - self._started_at
            words = next(tally.last_event for tally in self._ledger.tallies.values() if tally.events)
            print_marker("first event", f"after {seconds:.2f} s: {words}")
        else:
            self._live.update(self._moment(), refresh=True)

    def close(self, verdict: Verdict | None) -> None:
        """Leave the last picture behind; ``None`` where the demo came to no verdict."""
        if self._timer is not None:
            self._timer.cancel()
        if self._live is not None:
            self._live.update(self._moment() if verdict is None else self._whole(verdict), refresh=True)
            self._live.stop()
        elif verdict is not None and self._stdout_is_free:
            Console().print(self._whole(verdict))

    def _tick(self) -> None:
        if self._live is not None:
            self._live.update(self._moment(), refresh=True)
            self._timer = self._loop.call_later(_DRAW_SECONDS, self._tick)
            return
        if self._ledger.events:
            rate = sum(
                m.read(t.events) for m, t in zip(self._meters, self._ledger.tallies.values(), strict=True)
            )
            print_marker("running", f"{self._ledger.events:,} events, {rate:,.0f} events/s")
        self._timer = self._loop.call_later(_LINE_SECONDS, self._tick)

    def _moment(self) -> RenderableType:
        """Draw the present: rates and latencies of the last seconds."""
        rows = [
            Row(tally, meter.read(tally.events), tally.recent_latency())
            for meter, tally in zip(self._meters, self._ledger.tallies.values(), strict=True)
        ]
        return self._view(rows, title=self._title, mutations=self._ledger.mutations, verdict=None)

    def _whole(self, verdict: Verdict) -> RenderableType:
        """Draw the whole run: rates and latencies over all of it."""
        seconds = max(self._loop.time() - self._started_at, 0.001)
        rows = [Row(t, t.events / seconds, t.latency()) for t in self._ledger.tallies.values()]
        return self._view(rows, title=self._title, mutations=self._ledger.mutations, verdict=verdict)
