"""The events of the subscription fields, and what a subscription reads of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import final

import msgspec

from circuit_breaker_server.engine.cursor import Cursor

__all__ = ["Finite", "Selection", "StreamEvent", "made", "whole"]


@final
class StreamEvent(msgspec.Struct, eq=False, gc=False):
    """One event of one subscription field.

    :ivar stream: the field's name.
    :ivar source: its value, or what makes it: that is called when the value is first asked for, if ever.

    Example::

        StreamEvent("resourceUpdates", {"id": "r1", "state": "draft"})
    """

    stream: str
    source: dict[str, object] | Callable[[], dict[str, object]]

    @property
    def value(self) -> dict[str, object]:
        """In the shape of the field's type, with every field that can be selected; never changed.

        A value that is JSON already may be ``msgspec.Raw``, and a costly one may be callable: it is decoded
        or made only if a subscription selects it.
        """
        source = self.source
        if isinstance(source, dict):
            return source
        self.source = made = source()
        return made

    @property
    def whole(self) -> dict[str, object]:
        """The value with everything made that could be selected."""
        return {key: whole(item) for key, item in self.value.items()}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, StreamEvent) and self.stream == other.stream and self.whole == other.whole

    __hash__ = None  # type: ignore[assignment]  # as of a dict

    def __repr__(self) -> str:
        return f"StreamEvent({self.stream!r}, {self.whole!r})"


def made(value: object) -> object:
    """Make what is only made when it is selected: JSON that was not read yet, and what is callable."""
    if callable(value):
        value = value()
    return msgspec.json.decode(value) if isinstance(value, msgspec.Raw) else value


def whole(value: object) -> object:
    """Make all of it, all the way down."""
    value = made(value)
    if isinstance(value, dict):
        return {key: whole(item) for key, item in value.items()}
    return [whole(item) for item in value] if isinstance(value, (list, tuple)) else value


@final
class Finite(msgspec.Struct, frozen=True):
    """The start and the end of a finite stream, such as the chunks of one completion.

    A subscription gets the stream from its beginning, as long as the log keeps it. If the stream has not
    begun, the subscription waits for it.

    :ivar start: the position before its first event; ``None`` while it has not begun.
    :ivar is_over: tells whether its last event is in the log.
    :ivar ends: tells of an event's value whether it is the last one.
    :ivar missing: the text of the error if it does not begin in time.
    """

    start: Callable[[], Cursor | None]
    is_over: Callable[[], bool]
    ends: Callable[[Mapping[str, object]], bool]
    missing: str


@final
class Selection(msgspec.Struct, frozen=True):
    """The records and events that a subscription reads.

    :ivar subjects: patterns of the records to read.
    :ivar matches: tells from an event's value whether it belongs to the subscription; ``None``: all do.
    :ivar finite: ``None`` for a stream without beginning and end.
    """

    subjects: tuple[str, ...]
    matches: Callable[[Mapping[str, object]], bool] | None = None
    finite: Finite | None = None
