"""A logger that writes at most so many lines a second of one event, then how many it left out."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final, Literal, TypeAlias, final

from circuit_breaker_server import logs

__all__ = ["BoundedLogger"]

_WINDOW_SECONDS: Final = 1.0

Level: TypeAlias = Literal["debug", "info", "warning"]


@final
class _Window:
    """The lines of one key in the present second."""

    __slots__ = ("began", "left_out", "lines")

    def __init__(self, began: float) -> None:
        self.began = began
        self.lines = 1
        self.left_out = 0


def _call_later(seconds: float, callback: Callable[[], None]) -> bool:
    """Call back on the running event loop; ``False``: there is none."""
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        return False
    loop.call_later(seconds, callback)
    return True


@final
class BoundedLogger:
    """Write lines, of each key at most so many in a second; the next line says how many were left out.

    A flood of clients costs the disk ``lines_per_second`` lines and one. Keys must be of a fixed set: no
    client may choose them.

    :param lines_per_second: of one key, which is the event unless :meth:`info` names another.
    :param clock: monotonic, in seconds.
    :param call_later: lets the number of lines left out be written when the flood is over; returns whether
        it can.

    Example::

        logger = BoundedLogger("session", lines_per_second=1_000)
        logger.info("opened", remote="127.0.0.1:50000")
    """

    __slots__ = ("_call_later", "_clock", "_due", "_lines_per_second", "_logger", "_windows")

    def __init__(
        self,
        component: str,
        *,
        lines_per_second: int,
        clock: Callable[[], float] = time.monotonic,
        call_later: Callable[[float, Callable[[], None]], bool] = _call_later,
    ) -> None:
        self._logger = logs.get_logger(component)
        self._lines_per_second = lines_per_second
        self._clock = clock
        self._call_later = call_later
        self._windows: dict[str, _Window] = {}
        self._due: float | None = None

    def debug(self, event: str, *, key: str | None = None, **facts: object) -> None:
        """Write a line for whoever looks for a fault; it costs nothing where the level is off."""
        if logs.is_enabled("debug") and self._allows(key or event):
            self._logger.debug(event, **facts)

    def info(self, event: str, *, key: str | None = None, **facts: object) -> None:
        """Write a line; it costs nothing where the level is off.

        :param key: what is counted together.
        """
        if logs.is_enabled("info") and self._allows(key or event):
            self._logger.info(event, **facts)

    def warning(self, event: str, *, key: str | None = None, **facts: object) -> None:
        """Write a line that an operator should see."""
        if logs.is_enabled("warning") and self._allows(key or event):
            self._logger.warning(event, **facts)

    def flush(self) -> None:
        """Write how many lines were left out, of each key of which some were."""
        self._due = None
        for key, window in self._windows.items():
            self._report(key, window)

    def _allows(self, key: str) -> bool:
        now = self._clock()
        window = self._windows.get(key)
        if window is None or now - window.began >= _WINDOW_SECONDS:
            if window is not None:
                self._report(key, window)
            self._windows[key] = _Window(now)
            return True
        if window.lines < self._lines_per_second:
            window.lines += 1
            return True
        window.left_out += 1
        # A timer of an event loop that was closed meanwhile never comes.
        if (self._due is None or now > self._due + _WINDOW_SECONDS) and self._call_later(
            _WINDOW_SECONDS, self.flush
        ):
            self._due = now + _WINDOW_SECONDS
        return False

    def _report(self, key: str, window: _Window) -> None:
        if window.left_out:
            left_out, window.left_out = window.left_out, 0
            self._logger.warning("lines_left_out", of=key, lines=left_out)
