"""Output of ``watch``: JSON lines for a pipe, a live table for a terminal, a rate a second."""

from __future__ import annotations

import asyncio
import sys
from collections import deque
from collections.abc import Sequence
from datetime import datetime
from typing import Protocol, final

import msgspec
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from circuit_breaker_sdk.cli.streams import moment_and_words
from circuit_breaker_sdk.events import Event

__all__ = ["JsonLines", "LiveTable", "RateLines", "ReaderGoneError", "View"]

_REFRESH_SECONDS = 0.2
_RATE_SECONDS = 1.0
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

    :param field: the way to the member that is written in place of the event, as ``history.0.activity``;
        ``null`` where there is none.
    :param raw: whether a text is written without quotes.
    """

    def __init__(self, *, field: str | None = None, raw: bool = False) -> None:
        self._encoder = msgspec.json.Encoder()
        self._path = () if field is None else tuple(field.split("."))
        self._raw = raw

    def show(self, event: object) -> None:
        """Write the event; raise :class:`ReaderGoneError` when the reader has closed the pipe."""
        _write(self._line(event) + b"\n")

    def _line(self, event: object) -> bytes:
        encoded = self._encoder.encode(event)
        if not self._path and not self._raw:
            return encoded
        value = _member(msgspec.json.decode(encoded), self._path)
        if self._raw and isinstance(value, str):
            return value.encode("utf-8", "replace")
        return self._encoder.encode(value)

    def close(self) -> None:
        """Do nothing: every event is written already."""


@final
class RateLines:
    """Write once a second how many events came, in place of the events."""

    def __init__(self) -> None:
        self._count = self._told = 0
        self._is_gone = False
        self._loop = asyncio.get_running_loop()
        self._at = self._loop.time()
        self._timer = self._loop.call_later(_RATE_SECONDS, self._tell)

    def show(self, _event: object) -> None:
        """Count the event; raise :class:`ReaderGoneError` when the reader has closed the pipe."""
        self._count += 1
        if self._is_gone:
            raise ReaderGoneError

    def close(self) -> None:
        """Write the number of all."""
        self._timer.cancel()
        if not self._is_gone and self._count != self._told:
            self._write(f"{self._count:,} events\n")

    def _tell(self) -> None:
        now = self._loop.time()
        rate = (self._count - self._told) / (now - self._at)
        self._told, self._at = self._count, now
        self._timer = self._loop.call_later(_RATE_SECONDS, self._tell)
        self._write(f"{rate:,.0f} events/s, {self._count:,} events\n")

    def _write(self, text: str) -> None:
        try:
            _write(text.encode())
        except ReaderGoneError:
            self._is_gone = True


def _write(data: bytes) -> None:
    try:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
    except BrokenPipeError as error:
        raise ReaderGoneError from error


def _member(value: object, path: Sequence[str]) -> object:
    for name in path:
        if isinstance(value, dict):
            value = value.get(name)
        elif isinstance(value, list) and name.isdecimal() and int(name) < len(value):
            value = value[int(name)]
        else:
            return None
    return value


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
