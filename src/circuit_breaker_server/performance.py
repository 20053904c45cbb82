"""Look for what is slow, as the settings say, while the server runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import final

from circuit_breaker_server.instruments import Instruments, LoopDelay
from circuit_breaker_server.settings.server import ServerSettings

__all__ = ["Performance"]


@final
class Performance:
    """Sets the thresholds of the log, and measures the event loop where that is asked for.

    :param offsets: as :class:`LoopDelay`.

    Example::

        performance = Performance(instruments, lambda: (log.last_offset, gateway.last_offset))
        performance.change(settings)
        performance.close()
    """

    def __init__(self, instruments: Instruments, offsets: Callable[[], tuple[int, int]]) -> None:
        self._instruments = instruments
        self._delay = LoopDelay(instruments, offsets)

    def change(self, settings: ServerSettings) -> None:
        """Take the thresholds of settings."""
        self._instruments.slow.change(
            append_seconds=settings.slow_append_seconds,
            operation_seconds=settings.slow_operation_seconds,
            loop_seconds=settings.slow_loop_seconds,
        )
        wants_delay = settings.slow_loop_seconds is not None or settings.slow_operation_seconds is not None
        if wants_delay or settings.metrics_port is not None:
            self._delay.start()
        else:
            self._delay.stop()

    def close(self) -> None:
        """Measure no more, and write how many lines were left out."""
        self._delay.stop()
        self._instruments.slow.close()
        self._instruments.refusals.close()
