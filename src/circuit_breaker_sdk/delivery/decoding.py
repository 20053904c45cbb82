"""From the bytes of an execution result to a typed event, in one decoding."""

from __future__ import annotations

import functools
from collections.abc import Callable, Hashable
from typing import Annotated, Any, ClassVar, Generic, Literal, Protocol, TypeAlias, TypeVar, cast, final

import msgspec

from circuit_breaker_sdk.connections import Envelope
from circuit_breaker_sdk.delivery.decodable_types import DecodeHook, allows_none, check_type
from circuit_breaker_sdk.errors import GraphQLError
from circuit_breaker_sdk.protocol.error_payload import read_error_payload
from circuit_breaker_sdk.protocol.lenient_json import json_defect
from circuit_breaker_sdk.protocol.messages import MAX_CURSOR_CHARACTERS

__all__ = [
    "EventDecoder",
    "Extensions",
    "Response",
    "UnfitPayloadError",
    "event_decoder",
    "json_decoder",
    "read_errors",
    "traceparent_of",
]

T = TypeVar("T")
R = TypeVar("R")
T_co = TypeVar("T_co", covariant=True)


class UnfitPayloadError(Exception):
    """An execution result does not fit the event type; the text says what and where."""


class Resume(msgspec.Struct, gc=False):
    """The place behind an event, and the one before it."""

    cursor: Annotated[str, msgspec.Meta(max_length=MAX_CURSOR_CHARACTERS)]
    prev: str | None = None


class ResumeExtensions(msgspec.Struct, gc=False):
    """The addition of the resume extension to an execution result.

    :ivar traceparent: of the mutation that caused the event, where a client with a tracer negotiated it.
    """

    resume: Resume | None = None
    traceparent: object = None


class CursorExtensions(msgspec.Struct, gc=False):
    """The addition of a server that gives a cursor alone, and no chain: see ``ResumeByExtension``."""

    cursor: object = None
    traceparent: ClassVar[None] = None

    @property
    def resume(self) -> Resume | None:
        """The place behind the event; ``prev`` is no cursor."""
        return Resume(self.cursor, "") if isinstance(self.cursor, str) else None


Extensions: TypeAlias = ResumeExtensions | CursorExtensions
"""The ``extensions`` of an execution result, in the form that is decoded."""


def traceparent_of(extensions: Extensions | None) -> str | None:
    """Return the trace of the mutation that caused an event; ``None``: it was not traced."""
    found = None if extensions is None else extensions.traceparent
    return found if isinstance(found, str) else None


class Data(Protocol[T_co]):
    """``data`` of an execution result with one root field."""

    @property
    def value(self) -> T_co | None:
        """The root field's value."""
        ...


class Response(Protocol[T_co]):
    """An execution result, decoded; also the buffer's entry, so that an event costs no second object."""

    size_bytes: int

    @property
    def data(self) -> Data[T_co] | None:
        """``None`` where execution failed as a whole."""
        ...

    @property
    def errors(self) -> object:
        """The errors as plain JSON, ``None`` for none: read with :func:`read_errors`."""
        ...

    @property
    def extensions(self) -> Extensions | None:
        """Only decoded where resume was negotiated: elsewhere the key may mean anything."""
        ...


class _Peek(msgspec.Struct):
    data: dict[str, msgspec.Raw] | None = None


class _WithoutData(msgspec.Struct, omit_defaults=True):
    errors: list[msgspec.Raw] | None = None
    extensions: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


def read_errors(errors: object) -> tuple[GraphQLError, ...]:
    """Read a response's ``errors``, liberally in their details.

    :raises UnfitPayloadError: they are nested too deep.
    """
    try:
        payload = msgspec.json.encode(errors)
    except RecursionError:
        raise UnfitPayloadError("the response's errors cannot be read: they are nested too deep") from None
    return read_error_payload(payload)


# The size is ours: no response has a key of this name, and what it might say is overwritten.
_RENAMED_SIZE = "circuit-breaker:size"


_ANY_NAME = "?"


@functools.lru_cache(maxsize=256)
def _decoders(
    event_type: Hashable, root_field: str, extensions: Hashable, hook: DecodeHook | None
) -> tuple[Callable[[bytes], object], Callable[[bytes], object]]:
    # Any: this is the JSON codec's edge, the types below are made at run time.
    value_type: Any = cast("Any", event_type) | None
    data: Any = msgspec.defstruct("Data", [("value", value_type)], rename={"value": root_field}, gc=False)
    fields: list[tuple[str, Any, Any]] = [
        ("data", data | None, None),
        ("errors", Any, None),
        ("size_bytes", int, 0),
    ]
    namespace: dict[str, Any] = {}
    if extensions is not None:
        fields.append(("extensions", cast("Any", extensions) | None, None))
    else:
        namespace["extensions"] = None
    response = msgspec.defstruct(
        "Response", fields, rename={"size_bytes": _RENAMED_SIZE}, namespace=namespace, gc=False
    )
    envelope = msgspec.defstruct(
        "Envelope", [("id", str), ("type", Literal["next"]), ("payload", response)], gc=False
    )
    return (
        msgspec.json.Decoder(response, dec_hook=hook).decode,
        msgspec.json.Decoder(envelope, dec_hook=hook).decode,
    )


def _not_learned(_payload: bytes) -> Response[T]:
    raise UnfitPayloadError("the root field is not known yet")


@final
class EventDecoder(Generic[T]):
    """Decode the execution results of subscriptions with one root field and one type.

    A GraphQL subscription has exactly one root field. Where its name is not given it is learned from the
    first result: :meth:`learn` returns the decoder that knows it. None ever changes, and
    :func:`event_decoder` shares them: there may be a hundred thousand subscriptions.

    :raises UsageError: the type cannot be decoded: see :func:`check_type`.
    """

    __slots__ = (
        "_decode_hook",
        "_root_field",
        "_type",
        "_with_cursor",
        "_with_resume",
        "decode",
        "decode_next",
        "none_allowed",
    )

    def __init__(
        self,
        event_type: type[T],
        root_field: str | None,
        *,
        with_resume: bool,
        with_cursor: bool = False,
        decode_hook: DecodeHook | None = None,
    ) -> None:
        """``with_cursor``: where they are without what the resume extension adds, ``extensions.cursor``."""
        hook = check_type(event_type, decode_hook)
        self._type = event_type
        self._decode_hook = decode_hook
        self._root_field = root_field
        self._with_resume = with_resume
        self._with_cursor = with_cursor
        self.none_allowed: bool = allows_none(event_type)
        self.decode: Callable[[bytes], Response[T]] = _not_learned
        self.decode_next: Callable[[bytes], Envelope] | None = None
        """Decodes a whole message, and checks that it is a ``next``; ``None`` while nothing is learned."""
        if root_field is not None:
            extensions = ResumeExtensions if with_resume else CursorExtensions if with_cursor else None
            payload, whole = _once(_decoders, event_type, root_field, extensions, hook)
            self.decode = cast("Callable[[bytes], Response[T]]", payload)
            self.decode_next = cast("Callable[[bytes], Envelope]", whole)

    @property
    def root_field(self) -> str | None:
        """The root field's response key, if it is known."""
        return self._root_field

    @property
    def event_type(self) -> type[T]:
        """The type that events are decoded to."""
        return self._type

    def reading_cursors(self, with_resume: bool, *, with_cursor: bool = False) -> EventDecoder[T]:
        """Return a decoder of the same, with or without what the resume extension adds, or a cursor alone."""
        return event_decoder(
            self._type,
            self._root_field,
            with_resume=with_resume,
            with_cursor=with_cursor,
            decode_hook=self._decode_hook,
        )

    @property
    def type_name(self) -> str:
        """The event type's name, for messages."""
        return getattr(self._type, "__name__", None) or str(self._type)

    def learn(self, payload: bytes) -> EventDecoder[T]:
        """Learn the root field from a result; return the decoder that knows it, which may be this one."""
        try:
            data = msgspec.json.decode(payload, type=_Peek).data
        except (msgspec.DecodeError, RecursionError):
            return self
        if data is None:
            # Nothing to learn, but errors without data can be read under any name.
            return self._reading(_ANY_NAME) if self._root_field is None else self
        if len(data) == 1:
            (name,) = data
            # Names of GraphQL are identifiers; whatever else stands there is not learned, and so never fits.
            if name != self._root_field and name.isidentifier():
                return self._reading(name)
        return self

    def without_data(self, payload: bytes) -> Response[T] | None:
        """Decode a result that has errors as one without data; ``None``: it has none.

        Where a field has failed, what is left of the data may not fit the type: the errors say why.
        """
        try:
            found = msgspec.json.decode(payload, type=_WithoutData)
            return self.decode(msgspec.json.encode(found)) if found.errors else None
        except (msgspec.DecodeError, RecursionError, UnfitPayloadError):
            return None

    def explain(self, payload: bytes) -> str:
        """Say why a result does not fit."""
        try:
            response = self.decode(payload)
        except Exception as error:  # noqa: BLE001 (a type's own __post_init__ may raise anything)
            return json_defect(payload) or self._not_a_result(payload) or str(error) or type(error).__name__
        if response.data is None:
            return "neither data nor errors are in it - at `$.data`"
        return f"null where {self.type_name} was expected - at `$.data.{self._root_field}`"

    def _not_a_result(self, payload: bytes) -> str | None:
        if self._root_field is not None:
            return None
        try:
            msgspec.json.decode(payload, type=_Peek)
        except (msgspec.DecodeError, RecursionError) as error:
            return str(error)
        return None

    def _reading(self, root_field: str) -> EventDecoder[T]:
        return event_decoder(
            self._type,
            root_field,
            with_resume=self._with_resume,
            with_cursor=self._with_cursor,
            decode_hook=self._decode_hook,
        )


def event_decoder(
    event_type: type[T],
    root_field: str | None,
    *,
    with_resume: bool,
    with_cursor: bool = False,
    decode_hook: DecodeHook | None = None,
) -> EventDecoder[T]:
    """Return the decoder of a type under a root field; it is made once.

    :raises UsageError: the type cannot be decoded: see :func:`check_type`.
    """
    return _once(
        _event_decoder, cast("Hashable", event_type), root_field, with_resume, with_cursor, decode_hook
    )


@functools.lru_cache(maxsize=256)
def _event_decoder(
    event_type: Hashable,
    root_field: str | None,
    with_resume: bool,
    with_cursor: bool,
    decode_hook: DecodeHook | None,
) -> EventDecoder[Any]:
    return EventDecoder(
        cast("type[Any]", event_type),
        root_field,
        with_resume=with_resume,
        with_cursor=with_cursor,
        decode_hook=decode_hook,
    )


def json_decoder(type_: type[T], decode_hook: DecodeHook | None = None) -> Callable[[bytes | msgspec.Raw], T]:
    """Return what decodes JSON to a type; it is made once.

    :raises UsageError: the type cannot be decoded: see :func:`check_type`.
    """
    return _once(_json_decoder, cast("Hashable", type_), decode_hook)


@functools.lru_cache(maxsize=256)
def _json_decoder(type_: Hashable, decode_hook: DecodeHook | None) -> Callable[[bytes | msgspec.Raw], Any]:
    hook = check_type(type_, decode_hook)
    return msgspec.json.Decoder(cast("type[Any]", type_), dec_hook=hook).decode


def _once(cached: functools._lru_cache_wrapper[R], *arguments: Any) -> R:
    try:
        hash(arguments)
    except TypeError:  # an annotation may hold a dict, and a hook be any object
        return cached.__wrapped__(*arguments)
    return cached(*arguments)
