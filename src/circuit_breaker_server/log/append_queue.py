"""Appends that wait for the writer, and how many of them one transaction commits."""

from __future__ import annotations

from collections import deque
from typing import Final, Protocol, TypeAlias, final

from circuit_breaker_server.log.event_log import NewRecord, Record

__all__ = ["Answer", "AppendQueue", "WaitingAppend"]

_MAX_GROUP_BYTES: Final = 16 * 1024 * 1024


class Answer(Protocol):
    """The receiver of an append's outcome: a future, or an object that is used as one."""

    def done(self) -> bool:
        """Tell whether nobody waits for the outcome any more."""
        ...

    def set_result(self, result: Record, /) -> None:
        """Take the record that was appended."""
        ...

    def set_exception(self, exception: BaseException, /) -> None:
        """Take the reason why it was not."""
        ...


WaitingAppend: TypeAlias = "tuple[NewRecord, Answer]"
"""A record, and what is given the outcome of its append."""


@final
class AppendQueue:
    """Keep appends in their order. The event loop puts, the writer's thread takes.

    Example::

        queue.put(record, answer)
        group = queue.take_group()
    """

    __slots__ = ("_waiting",)

    def __init__(self) -> None:
        self._waiting: deque[WaitingAppend] = deque()

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def put(self, record: NewRecord, answer: Answer) -> None:
        """Append a record behind the others."""
        self._waiting.append((record, answer))

    def take_group(self) -> list[WaitingAppend]:
        """Remove and return the appends of the next transaction: all that wait, up to 16 MiB of data."""
        group: list[WaitingAppend] = []
        size = 0
        while self._waiting and size < _MAX_GROUP_BYTES:
            group.append(self._waiting.popleft())
            size += len(group[-1][0].data)
        return group
