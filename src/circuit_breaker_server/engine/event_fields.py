"""The sources of an event's fields in a record's body, for encoders that make no whole value."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from operator import attrgetter
from typing import Any, TypeAlias, final

import msgspec

from circuit_breaker_server.log.event_log import Record

__all__ = ["EventBodies", "EventFields", "FieldSource", "FieldValues", "Make", "always", "getter", "offset"]

# Any: a body is of the type under which its sources are listed, an item is what `items` returns.
Make: TypeAlias = Callable[[Record, Any, Any], object]
"""From a record, its body and an item of it to the value of a field."""

FieldSource: TypeAlias = str | Make
"""The dotted path of an attribute of the body, or a function."""


@final
class EventFields(msgspec.Struct, frozen=True, gc=False):
    """The sources of the events that one kind of body has in one stream.

    They say what :func:`~.event_derivation.derive` says; a property test holds the two together.

    :ivar fields: the source of each field of the event's type, by its name in the schema.
    :ivar items: returns what there is one event for each of; ``None``: there is one event.
    :ivar first: the index of the first of these events in the record, or what tells it from the body.

    Example::

        EventFields({"id": "resource.id", "kind": always("CREATED")})
    """

    fields: Mapping[str, FieldSource]
    items: Callable[[Any], Sequence[object]] | None = None
    first: int | Callable[[Any], int] = 0


@final
class EventBodies(msgspec.Struct, frozen=True):
    """The bodies of all records, and the sources of their events.

    :ivar reader: from patterns of subjects to what reads the bodies of records that match one of them, and
        raises ``LogCorruptError``; of a record without events it reads ``None``.
    :ivar fields: by stream and type of body; a body that is not there has no events in the stream.
    """

    reader: Callable[[Sequence[str]], Callable[[Record], object]]
    fields: Mapping[str, Mapping[type, EventFields]]


@final
class FieldValues(Mapping[str, object]):
    """An event's value whose fields are made one by one, when they are asked for."""

    __slots__ = ("_body", "_fields", "_item", "_record")

    def __init__(self, fields: Mapping[str, Make], record: Record, body: object, item: object) -> None:
        self._fields = fields
        self._record = record
        self._body = body
        self._item = item

    def __getitem__(self, name: str) -> object:
        return self._fields[name](self._record, self._body, self._item)

    def __iter__(self) -> Iterator[str]:
        return iter(self._fields)

    def __len__(self) -> int:
        return len(self._fields)


def getter(source: FieldSource) -> Make:
    """Return a source as a function."""
    if not isinstance(source, str):
        return source
    get = attrgetter(source)
    return lambda _record, body, _item: get(body)


def always(value: object) -> Make:
    """Return the source of a field that is the same in all events."""
    return lambda _record, _body, _item: value


def offset(record: Record, _body: object, _item: object) -> str:
    """Return the record's offset, as the schema shows numbers of the log."""
    return str(record.offset)
