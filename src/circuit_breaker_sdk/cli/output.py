"""Output of ``watch``: JSON lines for a pipe, a live table for a terminal."""

from __future__ import annotations

import asyncio
import sys
from collections import deque
from datetime import datetime
from typing import Protocol, final

import msgspec
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from circuit_breaker_sdk.cli.streams import moment_and_words
from circuit_breaker_sdk.events import Event

__all__ = ["JsonLines", "LiveTable", "ReaderGoneError", "View"]

_REFRESH_SECONDS = 0.2
_LINES_AROUND_THE_ROWS = 8


class ReaderGoneError(Exception):
    """The reader of stdout has gone."""


class View(Protocol):
    """Show events one by one; closing leaves on the screen what was shown last."""

    def show(self, event: Event) -> None:
        """Show an event."""

    def close(self) -> None:
        """Show what is not shown yet, and give the screen back."""


@final
class JsonLines:
    """Write each event as one JSON object on one line, at once.

    The keys are the schema's own names (camelCase). Writing waits for a reader that is slow: the stream
    then waits too, nothing is dropped.
    """

    def __init__(self) -> None:
        self._encoder = msgspec.json.Encoder()

    def show(self, event: Event) -> None:
        """Write the event; raise :class:`ReaderGoneError` when the reader has closed the pipe."""
        try:
            sys.stdout.buffer.write(self._encoder.encode(event) + b"\n")
            sys.stdout.buffer.flush()
        except BrokenPipeError as error:
            raise ReaderGoneError from error

    def close(self) -> None:
        """Do nothing: every event is written already."""


@final
class LiveTable:
    """Keep a table of the newest events on the terminal, redrawn at most five times a second."""

    def __init__(self, *, title: str) -> None:
        self._title = title
        self._console = Console()
        self._rows: deque[tuple[datetime, str]] = deque(
            maxlen=max(1, self._console.height - _LINES_AROUND_THE_ROWS)
        )
        self._count = 0
        self._redraw: asyncio.TimerHandle | None = None
        # Redrawn by a timer of the loop: rich's own refresh would be a thread.
        self._live = Live(self._table(), console=self._console, auto_refresh=False)
        self._live.start()

    def show(self, event: Event) -> None:
        """Add the event to the table."""
        self._count += 1
        self._rows.append(moment_and_words(event))
        if self._redraw is None:
            self._redraw = asyncio.get_running_loop().call_later(_REFRESH_SECONDS, self._draw)

    def close(self) -> None:
        """Draw the last state and leave it on the screen."""
        self._draw()
        self._live.stop()

    def _draw(self) -> None:
        if self._redraw is not None:
            self._redraw.cancel()
            self._redraw = None
        self._live.update(self._table(), refresh=True)

    def _table(self) -> Table:
        table = Table(title=f"{self._title}: {self._count:,} events", title_justify="left", expand=True)
        table.add_column("time", no_wrap=True)
        table.add_column("event", ratio=1, no_wrap=True, overflow="ellipsis")
        for when, words in self._rows:
            table.add_row(when.astimezone().strftime("%H:%M:%S.%f")[:-3], Text(words))
        return table
