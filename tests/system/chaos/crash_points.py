"""Where the server can be made to kill itself: the boundaries of append, commit and fan-out.

Nothing of the product knows of this: the methods at the boundaries are wrapped in the process under test.
"""

from __future__ import annotations

import functools
import os
import signal
from collections.abc import Callable
from typing import Any, TypeAlias

from circuit_breaker_server.gateway.fan_out import FanOut
from circuit_breaker_server.gateway.feed import Feed
from circuit_breaker_server.log.jetstream import JetStreamEventLog
from circuit_breaker_server.log.jetstream.appender import Appender
from circuit_breaker_server.log.jetstream.broker import Broker
from circuit_breaker_server.log.jetstream.recent import RecentRecords
from circuit_breaker_server.log.sqlite import SqliteEventLog
from circuit_breaker_server.log.tail_callbacks import TailCallbacks
from circuit_breaker_server.log.writer import Writer
from tests.system.chaos.event_logs import Log

__all__ = ["POINTS", "install"]

_Points: TypeAlias = "dict[str, tuple[Any, str, str]]"  # Any: classes of several kinds

# A point: the class, its method, and whether to die before or after the call.
_FAN_OUT: _Points = {
    "before the fan-out": (FanOut, "_flush_some", "before"),
    "before a socket is written": (Feed, "write", "before"),
    "after a socket is written": (Feed, "write", "after"),
    "after the fan-out": (FanOut, "_flush_some", "after"),
}
_SQLITE: _Points = {
    "before the append is queued": (SqliteEventLog, "append", "before"),
    "before the commit": (Writer, "append", "before"),
    "after the commit, before anyone knows": (Writer, "append", "after"),
    "before the tails hear of it": (TailCallbacks, "call", "before"),
    "after the tails, before the answer": (TailCallbacks, "call", "after"),
    **_FAN_OUT,
}
_JETSTREAM: _Points = {
    "before the append is queued": (JetStreamEventLog, "append", "before"),
    "before the records are sent": (Appender, "_send_group", "before"),
    "after the records were sent, before their acknowledgement": (Broker, "next_reply", "before"),
    "before the tails hear of it": (RecentRecords, "add", "before"),
    "after the tails, before the answer": (Appender, "delivered", "before"),
    "after the tails and the answer": (Appender, "delivered", "after"),
    **_FAN_OUT,
}
POINTS: dict[Log, _Points] = {"sqlite": _SQLITE, "jetstream": _JETSTREAM}


def install(log: Log, point: str, passes: int) -> None:
    """Kill this process when the point is passed for the ``passes``-th time from now on."""
    kind, name, when = POINTS[log][point]
    original: Callable[..., Any] = getattr(kind, name)
    count = 0

    @functools.wraps(original)
    def wrapped(*args: Any, **kwargs: Any) -> Any:  # whatever the method takes and gives
        nonlocal count
        count += 1
        if count == passes and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        result = original(*args, **kwargs)
        if count == passes and when == "after":
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(kind, name, wrapped)
