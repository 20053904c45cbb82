"""The events of the subscription fields, and what a subscription reads of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import final

import msgspec

from circuit_breaker_server.engine.cursor import Cursor

__all__ = ["Finite", "Selection", "StreamEvent"]


@final
class StreamEvent(msgspec.Struct, frozen=True):
    """One event of one subscription field.

    :ivar stream: the field's name.
    :ivar value: in the shape of the field's type, with every field that can be selected; never changed
        by whoever reads it.
    """

    stream: str
    value: dict[str, object]


@final
class Finite(msgspec.Struct, frozen=True):
    """What is known of a stream that begins and ends, such as the chunks of one completion.

    Whoever subscribes gets it from its beginning, as long as the log keeps that. One that has not begun is
    waited for.

    :ivar start: the place before its first event; ``None`` while it has not begun.
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
    """What a subscription reads.

    :ivar subjects: patterns of the records to read.
    :ivar matches: tells of an event's value whether it is wanted; ``None`` wants all.
    :ivar finite: ``None`` for a stream without beginning and end.
    """

    subjects: tuple[str, ...]
    matches: Callable[[Mapping[str, object]], bool] | None = None
    finite: Finite | None = None
