"""Log what takes longer than it should: appends, snapshots, operations, the event loop, its tail."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Final, final

from circuit_breaker_server.bounded_log import BoundedLogger

__all__ = ["SlowLog"]

_LINES_PER_SECOND: Final = 10
_FIELDS_TOLD: Final = 5


@final
class SlowLog:
    """The thresholds, and the lines of what is above them; ``None`` writes none.

    :ivar append_seconds: of a commit of appends, or of a snapshot, for which appends wait.
    :ivar operation_seconds: of a query or mutation, or until subscribers are offered a record.
    :ivar loop_seconds: how late a timer of the event loop is.

    Example::

        slow = SlowLog(append_seconds=0.5)
        slow.append(0.7, records=12)
    """

    __slots__ = ("_log", "append_seconds", "loop_seconds", "operation_seconds")

    def __init__(
        self,
        *,
        append_seconds: float | None = None,
        operation_seconds: float | None = None,
        loop_seconds: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.append_seconds = append_seconds
        self.operation_seconds = operation_seconds
        self.loop_seconds = loop_seconds
        self._log = BoundedLogger("performance", lines_per_second=_LINES_PER_SECOND, clock=clock)

    def change(
        self,
        *,
        append_seconds: float | None,
        operation_seconds: float | None,
        loop_seconds: float | None,
    ) -> None:
        """Take other thresholds."""
        self.append_seconds = append_seconds
        self.operation_seconds = operation_seconds
        self.loop_seconds = loop_seconds

    def append(self, seconds: float, *, records: int) -> None:
        """Look at a group of appends that was committed."""
        if self.append_seconds is not None and seconds > self.append_seconds:
            self._log.warning("slow_append", seconds=round(seconds, 3), records=records)

    def snapshot(self, seconds: float, *, entries: int, offset: int) -> None:
        """Look at a snapshot that was saved."""
        if self.append_seconds is not None and seconds > self.append_seconds:
            self._log.warning("slow_snapshot", seconds=round(seconds, 3), entries=entries, offset=offset)

    def operation(self, kind: str, seconds: float, *, fields: Callable[[], Sequence[str]]) -> None:
        """Look at a query or mutation that has ended.

        :param fields: returns the fields of the schema that it asked for.
        """
        if self.operation_seconds is not None and seconds > self.operation_seconds:
            self._log.warning(
                "slow_operation",
                kind=kind,
                seconds=round(seconds, 3),
                fields=",".join(fields()[:_FIELDS_TOLD]),
            )

    def loop(self, seconds: float) -> None:
        """Look at the delay of a timer."""
        if self.loop_seconds is not None and seconds > self.loop_seconds:
            self._log.warning("slow_loop", seconds=round(seconds, 3))

    def tail(self, seconds: float, *, records: int) -> None:
        """Look at how long a record waits to be offered to subscribers.

        :param records: how many wait.
        """
        if self.operation_seconds is not None and seconds > self.operation_seconds:
            self._log.warning("tail_lag", seconds=round(seconds, 3), records=records)

    def close(self) -> None:
        """Write how many lines were left out."""
        self._log.flush()
