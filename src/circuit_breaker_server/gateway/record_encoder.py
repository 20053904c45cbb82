"""Encode the events of records that are read again, from the records' bodies.

A replay encodes very many events, each once. So their values are not made: what a channel selects is taken
from the body of each kind of record by functions that are compiled once. What does not fit is derived and
encoded as a live event is, and counted; a property test holds the two ways together.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from operator import attrgetter
from typing import Any, Final, Protocol, TypeAlias, final, get_type_hints

import msgspec

from circuit_breaker_server.engine.event_fields import (
    EventBodies,
    EventFields,
    FieldSource,
    FieldValues,
    Make,
    always,
    getter,
)
from circuit_breaker_server.engine.events import StreamEvent
from circuit_breaker_server.gateway.projection import Projection
from circuit_breaker_server.graphql.selection_compiler import SelectedField, UnfitValue
from circuit_breaker_server.log.event_log import Record

__all__ = ["NO_EVENTS", "Events", "RecordEncoder"]

_ENCODE: Final = msgspec.json.Encoder().encode
_NULL: Final = msgspec.Raw(b"null")

_Encode: TypeAlias = Callable[[Record, Any, Any], bytes]


class Events(Protocol):
    """The events that one kind of body has in one stream."""

    @property
    def only(self) -> Sequence[tuple[int, Any]] | None:
        """The items of every such body, if they are always the same: it need not be asked for them."""
        ...

    def items(self, body: Any, /) -> Sequence[tuple[int, Any]]:
        """Return the index of each event in its record, and the item that it is made of."""
        ...

    def value(self, record: Record, body: Any, item: Any, /) -> Mapping[str, object]:
        """Return an event's value."""
        ...

    @property
    def encode(self) -> _Encode:
        """From a record, its body and an item to the payload, as ``Projection.encode`` returns it."""
        ...


@final
class RecordEncoder:
    """Encodes the events of one stream's records for one selection.

    :ivar read: reads the body of a record; raises ``LogCorruptError``.
    :ivar by_body: the events of each type of body; one that is not there has none.
    :ivar fallbacks: how many events were derived, since the encoder could not take them from the body.

    Example::

        encoder = RecordEncoder(projection, "resourceUpdates", derive, EVENT_BODIES)
        body = encoder.read(record)
        events = encoder.by_body.get(type(body), NO_EVENTS)
        [events.encode(record, body, item) for index, item in events.items(body)]
    """

    __slots__ = ("_derive", "_projection", "by_body", "fallbacks", "read")

    def __init__(
        self,
        projection: Projection,
        stream: str,
        derive: Callable[[Record], Sequence[StreamEvent]],
        bodies: EventBodies | None,
        *,
        subjects: Sequence[str] = (">",),
    ) -> None:
        """Compile what the projection selects; without ``bodies``, every event is derived.

        :param subjects: patterns of the records that are read.
        """
        self._projection = projection
        self._derive = derive
        self.fallbacks = 0
        self.read: Callable[[Record], object] = _itself
        self.by_body: dict[type, Events] = {}
        fields = None if bodies is None else projection.fields
        if bodies is None or fields is None:
            self.by_body[Record] = _DerivedEvents(stream, derive, self._encode_value)
            return
        self.read = bodies.reader(subjects)
        for body, sources in bodies.fields.get(stream, {}).items():
            self.by_body[body] = _BodyEvents(projection.head, fields, sources, body)

    def encode(self, events: Events, record: Record, body: Any, item: Any, index: int) -> bytes:
        """Encode one event; if its values are not what the schema promises, as a live event is encoded."""
        try:
            return events.encode(record, body, item)
        except UnfitValue:
            return self.encode_derived(record, index)

    def encode_derived(self, record: Record, index: int) -> bytes:
        """Encode the event of a record at an index as a live event is encoded."""
        return self._encode_value(record, record, self._derive(record)[index].value)

    def take_fallbacks(self) -> int:
        """Return :attr:`fallbacks` and count from 0 again."""
        taken, self.fallbacks = self.fallbacks, 0
        return taken

    def _encode_value(self, _record: Record, _body: object, value: Mapping[str, object]) -> bytes:
        self.fallbacks += 1
        return self._projection.encode(value)


def _itself(record: Record) -> Record:
    return record


@final
class _DerivedEvents:
    """The events of a record, derived: the record takes the place of its body, values that of items."""

    __slots__ = ("_derive", "_stream", "encode", "only")

    def __init__(
        self, stream: str, derive: Callable[[Record], Sequence[StreamEvent]], encode: _Encode
    ) -> None:
        self._stream = stream
        self._derive = derive
        self.encode = encode
        self.only: Sequence[tuple[int, Any]] | None = None

    def items(self, record: Record) -> Sequence[tuple[int, Mapping[str, object]]]:
        return [
            (index, event.value)
            for index, event in enumerate(self._derive(record))
            if event.stream == self._stream
        ]

    def value(self, _record: Record, _body: object, value: Mapping[str, object]) -> Mapping[str, object]:
        return value


@final
class _NoEvents:
    """The events of a body that has none in the stream."""

    only: Sequence[tuple[int, Any]] = ()

    def items(self, _body: object) -> Sequence[tuple[int, Any]]:
        return ()

    def value(self, _record: Record, _body: object, _item: object) -> Mapping[str, object]:
        raise LookupError("there is no event")

    def encode(self, _record: Record, _body: object, _item: object) -> bytes:
        raise LookupError("there is no event")


NO_EVENTS: Final = _NoEvents()


@final
class _BodyEvents:
    """The events of one kind of body, taken from it."""

    __slots__ = ("_first", "_items", "_makes", "encode", "only")

    def __init__(
        self, head: bytes, fields: Sequence[SelectedField], sources: EventFields, body: type
    ) -> None:
        self._first = sources.first
        self._items = sources.items
        self.only: Sequence[tuple[int, Any]] | None = None
        if sources.items is None and isinstance(sources.first, int):
            self.only = ((sources.first, None),)
        self._makes = {name: getter(source) for name, source in sources.fields.items()}
        self.encode = _compile(head, fields, sources.fields, body)

    def items(self, body: Any) -> Sequence[tuple[int, Any]]:
        first = self._first if isinstance(self._first, int) else self._first(body)
        return list(enumerate((None,) if self._items is None else self._items(body), first))

    def value(self, record: Record, body: Any, item: Any) -> Mapping[str, object]:
        return FieldValues(self._makes, record, body, item)


def _compile(
    head: bytes, fields: Sequence[SelectedField], sources: Mapping[str, FieldSource], body: type
) -> _Encode:
    leaves = _leaves(tuple(field.key for field in fields))
    paths = [
        path
        for field in fields
        if field.name is not None and (path := _plain_path(field, sources[field.name], body)) is not None
    ]
    if len(paths) == len(fields) > 1:
        present = tuple(place for place, field in enumerate(fields) if field.is_json and not field.nullable)
        return _of_paths(head, leaves, paths, present)
    return _of_makes(head, leaves, [_make(field, sources, body) for field in fields])


def _of_paths(
    head: bytes,
    leaves: Callable[..., object],
    paths: Sequence[str],
    present: Sequence[int],
) -> _Encode:
    """Take all leaves of an event in one call; JSON at ``present`` must not be null."""
    get_part: Callable[[object], object] | None = None
    parts = {path.rpartition(".")[0] for path in paths}
    if len(parts) == 1 and "" not in parts:
        # All of one object in the body, as of a resource: its path is followed once.
        get_part = attrgetter(*parts)
        paths = [path.rpartition(".")[2] for path in paths]
    get: Callable[[object], tuple[object, ...]] = attrgetter(*paths)

    def encode(_record: Record, body: object, _item: object) -> bytes:
        values = get(body if get_part is None else get_part(body))
        for place in present:
            if values[place] == _NULL:
                raise UnfitValue
        return head + _ENCODE(leaves(*values)) + b"}"

    return encode


def _of_makes(head: bytes, leaves: Callable[..., object], makes: Sequence[Make]) -> _Encode:
    def encode(record: Record, body: object, item: object) -> bytes:
        return head + _ENCODE(leaves(*[make(record, body, item) for make in makes])) + b"}"

    return encode


def _plain_path(field: SelectedField, source: FieldSource, body: type) -> str | None:
    """Return the path of a leaf whose type in the body is the one that the schema promises."""
    if not isinstance(source, str):
        return None
    type_ = _type_at(body, source)
    if field.is_json:
        return source if type_ is msgspec.Raw else None
    if field.exact is None:
        return None
    promised = (field.exact, field.exact | None) if field.nullable else (field.exact,)
    return source if type_ in promised else None


def _type_at(body: type, path: str) -> object:
    type_: Any = body
    for name in path.split("."):
        type_ = get_type_hints(type_).get(name) if isinstance(type_, type) else None
    return type_


def _make(field: SelectedField, sources: Mapping[str, FieldSource], body: type) -> Make:
    if field.name is None:
        return always(field.constant)
    source = sources[field.name]
    make, nullable, exact, complete = getter(source), field.nullable, field.exact, field.complete
    if not field.is_json and _plain_path(field, source, body) is not None:
        return make

    def checked(record: Record, body: object, item: object) -> object:
        value = make(record, body, item)
        if value is None or (type(value) is msgspec.Raw and value == _NULL):
            if not nullable:
                raise UnfitValue
            return None
        if exact is None:
            return complete(value)
        if type(value) is not exact:
            raise UnfitValue
        return value

    return checked


@functools.lru_cache(maxsize=256)
def _leaves(keys: tuple[str, ...]) -> Callable[..., object]:
    # Names of no meaning: a field of the schema may be called as a method of the struct.
    names = [f"field_{place}" for place in range(len(keys))]
    return msgspec.defstruct(
        "Leaves",
        [(name, object) for name in names],
        rename=dict(zip(names, keys, strict=True)),
        gc=False,
    )
