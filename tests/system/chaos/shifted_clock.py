"""The server in a process whose clock is ahead: ``shifted_clock SECONDS ORDERS``.

The clock of a machine cannot be set for one process. So what tells the time is replaced before anything of
the server is imported; the monotonic clock goes on as it is.
"""

from __future__ import annotations

import datetime
import sys
import time
from importlib import import_module
from typing import Any, Self


class _Kind(type):
    """Takes any date with a time for one of the class that replaces it."""

    def __instancecheck__(cls, instance: object) -> bool:
        return isinstance(instance, _DATETIME)


_DATETIME = datetime.datetime


def shift(seconds: int) -> None:
    """Set the clock of this process ahead."""
    true_time, true_time_ns = time.time, time.time_ns

    class Shifted(_DATETIME, metaclass=_Kind):
        @classmethod
        def now(cls, tz: datetime.tzinfo | None = None) -> Self:
            return super().now(tz) + datetime.timedelta(seconds=seconds)

    replaced: Any = datetime
    replaced.datetime = Shifted
    time.time = lambda: true_time() + seconds
    time.time_ns = lambda: true_time_ns() + seconds * 1_000_000_000


if __name__ == "__main__":
    shift(int(sys.argv.pop(1)))
    import_module("tests.system.chaos.server_process").main()
