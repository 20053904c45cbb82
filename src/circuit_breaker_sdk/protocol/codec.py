"""Bytes to messages and back, for ``graphql-transport-ws``.

Read liberally: unknown keys, any order of keys, any whitespace, ``ka``, sloppy details inside a GraphQL
error, an ``error`` whose payload is one object. Read strictly: a field that the message needs and that is
missing or of another type is an :class:`InvalidMessage`; where only the payload of one ``subscribe`` is at
fault, an :class:`InvalidPayload`, which names the operation. The payload of a ``next`` is not judged here:
the decoder of its event type refuses it. Write one form only: keys in the order ``id``, ``type``,
``payload``, no whitespace, nothing that is ``None``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Final, TypeVar

import msgspec

from circuit_breaker_sdk.errors import GraphQLError, UsageError
from circuit_breaker_sdk.protocol.error_payload import read_error_payload
from circuit_breaker_sdk.protocol.json_depth import check_depth
from circuit_breaker_sdk.protocol.lenient_json import json_defect, read_leniently
from circuit_breaker_sdk.protocol.messages import (
    Complete,
    ConnectionAck,
    ConnectionInit,
    Error,
    Message,
    Next,
    Ping,
    Pong,
    Subscribe,
)

__all__ = [
    "ConnectionRefused",
    "Envelope",
    "InvalidMessage",
    "InvalidPayload",
    "decode_by_type",
    "decode_message",
    "decode_next",
    "decode_subscribe",
    "encode_message",
    "next_prefix",
    "operation_id",
    "optional_payload",
]

T = TypeVar("T")

_MAX_SHOWN_TYPE = 32  # characters of a peer's unknown type that a close reason repeats


class InvalidMessage(Exception):
    """The received bytes are no message of the protocol.

    :ivar reason: a short text for the close frame; no payload is repeated in it.
    """

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(reason)


class InvalidPayload(InvalidMessage):
    """The payload of a ``subscribe`` cannot be read: that operation fails, the connection goes on.

    :ivar id: the operation's; it may hold a lone surrogate, which JSON's grammar allows.
    """

    def __init__(self, id: str, reason: str) -> None:  # noqa: A002 (the protocol's own word)
        self.id = id
        super().__init__(reason)


class ConnectionRefused(InvalidMessage):
    """A ``connection_error``: the legacy protocol's refusal, which some servers of this one send too.

    :ivar said: the server's text.
    """

    def __init__(self, said: str) -> None:
        self.said = said
        super().__init__("unknown message type 'connection_error'")


# The JSON decoder takes `Raw | None` for `None` alone; an absent field is told by this very object.
_ABSENT: Final = msgspec.Raw()


class Envelope(msgspec.Struct, gc=False):
    """A message of which only the type was looked at.

    Example::

        Envelope("complete", "1")
    """

    type: str
    # Only some messages have an id; in the others a stray one of any type does no harm.
    id: object = None
    payload: msgspec.Raw = _ABSENT


class _SubscribePayload(msgspec.Struct, gc=False, rename={"operation_name": "operationName"}):
    # Absent and of a wrong type are told apart: the one is no `subscribe`, the other fails its operation.
    query: str | msgspec.UnsetType = msgspec.UNSET
    variables: dict[str, object] | None = None
    operation_name: str | None = None
    extensions: dict[str, object] | None = None


_envelope: Final = msgspec.json.Decoder(Envelope)
_object: Final = msgspec.json.Decoder(dict[str, object])
_object_or_null: Final = msgspec.json.Decoder(dict[str, object] | None)
_subscribe_payload: Final = msgspec.json.Decoder(_SubscribePayload)
_encoder: Final = msgspec.json.Encoder()
# The front of a message whose payload is nested deeper than any decoder goes.
_MEMBER: Final = rb'[ \t\r\n]*"(id|type)"[ \t\r\n]*:[ \t\r\n]*"([^"\\\x00-\x1f]*)"[ \t\r\n]*,'
_FRONT: Final = re.compile(
    rb"[ \t\r\n]*\{" + _MEMBER + _MEMBER + rb'[ \t\r\n]*"payload"[ \t\r\n]*:(?=[ \t\r\n]*[\[{])'
)


def decode_message(data: bytes) -> Message | None:
    """Decode one text message; ``None`` for ``ka``, which some servers send under the modern protocol.

    Never raises anything but :class:`InvalidMessage`, whatever the bytes are (not UTF-8, not JSON, nested
    deeper than 500, lone surrogates, numbers out of range).

    :raises InvalidPayload: a ``subscribe`` whose id can be read, and whose payload cannot.
    """
    return decode_by_type(data, _DECODERS, otherwise=_decode_unknown)


def decode_by_type(
    data: bytes, decoders: Mapping[str, Callable[[Envelope], T]], *, otherwise: Callable[[Envelope], T]
) -> T:
    """Decode one text message by the decoder of its type.

    :raises InvalidMessage: as :func:`decode_message`.
    """
    # Parts we skip over are not looked at as text by the JSON decoder, hence the check of the whole.
    if not data.isascii():
        try:
            data.decode()
        except UnicodeDecodeError:
            raise InvalidMessage("the message is not valid UTF-8") from None
    try:
        check_depth(data)
        envelope = _envelope.decode(data)
    except (msgspec.DecodeError, RecursionError) as error:
        envelope = _read_leniently(data, InvalidMessage(f"not a message: {error}"))
    try:
        return decoders.get(envelope.type, otherwise)(envelope)
    except (msgspec.DecodeError, RecursionError) as error:
        raise InvalidMessage(f"{envelope.type}: invalid payload: {error}") from None


def encode_message(message: Message) -> bytes:
    """Encode one message as a text message's bytes.

    :raises UsageError: a value in it has no JSON form.
    """
    try:
        return _encode(message)
    except (TypeError, ValueError, RecursionError) as error:
        why = str(error)
    # Not chained: the error of a text that is no Unicode holds that text, which may be a token.
    raise UsageError(f"{type(message).__name__} cannot be written as JSON: {why}")


def next_prefix(id: str) -> bytes:  # noqa: A002 (the protocol's own word)
    """Build what precedes the payload in every ``next`` of one operation.

    ``next_prefix(id) + payload + b"}"`` equals ``encode_message(Next(id, payload))``; a server builds the
    prefix once per operation.
    """
    return b'{"id":' + _encoder.encode(id) + b',"type":"next","payload":'


def _encode(message: Message) -> bytes:
    if isinstance(message, Next):
        return next_prefix(message.id) + message.payload + b"}"
    if isinstance(message, Complete):
        return b'{"id":' + _encoder.encode(message.id) + b',"type":"complete"}'
    if isinstance(message, Subscribe):
        payload: dict[str, object] = {"query": message.query}
        if message.variables is not None:
            payload["variables"] = message.variables
        if message.operation_name is not None:
            payload["operationName"] = message.operation_name
        if message.extensions is not None:
            payload["extensions"] = message.extensions
        return _encode_parts(message.id, "subscribe", payload)
    if isinstance(message, Error):
        return _encode_parts(message.id, "error", [_error_object(error) for error in message.errors])
    kind = _PAYLOAD_ONLY[type(message)]
    if message.payload is None:
        return b'{"type":"' + kind + b'"}'
    return b'{"type":"' + kind + b'","payload":' + _encoder.encode(message.payload) + b"}"


def _encode_parts(id_: str, kind: str, payload: Mapping[str, object] | Sequence[object]) -> bytes:
    return b'{"id":%b,"type":"%b","payload":%b}' % (_encode_id(id_), kind.encode(), _encoder.encode(payload))


def _encode_id(id_: str) -> bytes:
    try:
        return _encoder.encode(id_)
    except UnicodeEncodeError:
        # A peer's id with a lone surrogate: its error must name it as it came.
        return json.dumps(id_).encode()


def _error_object(error: GraphQLError) -> dict[str, object]:
    # `null` is not allowed for these keys (GraphQL specification, section 7.1.2): they are left out.
    optional = {"locations": error.locations, "path": error.path, "extensions": error.extensions}
    return {"message": error.message} | {key: value for key, value in optional.items() if value is not None}


_PAYLOAD_ONLY: Final[Mapping[type[ConnectionInit | ConnectionAck | Ping | Pong], bytes]] = {
    ConnectionInit: b"connection_init",
    ConnectionAck: b"connection_ack",
    Ping: b"ping",
    Pong: b"pong",
}


def _decode_unknown(envelope: Envelope) -> Message | None:
    kind = envelope.type
    if kind == "ka":
        return None
    if kind == "connection_error":
        errors = read_error_payload(bytes(envelope.payload) or b"[]")
        raise ConnectionRefused("; ".join(error.message for error in errors))
    raise InvalidMessage(f"unknown message type {kind[:_MAX_SHOWN_TYPE]!r}")


def operation_id(envelope: Envelope) -> str:
    """Return the id of a message.

    :raises InvalidMessage: it is missing, empty or no string.
    """
    id_ = envelope.id
    if not isinstance(id_, str) or not id_:
        raise InvalidMessage(f"{envelope.type}: the id must be a string that is not empty")
    return id_


def optional_payload(envelope: Envelope) -> dict[str, object] | None:
    """Return a payload that is an object, or absent."""
    return None if envelope.payload is _ABSENT else _object_or_null.decode(envelope.payload)


def _decode_connection_init(envelope: Envelope) -> Message:
    return ConnectionInit(optional_payload(envelope))


def _decode_connection_ack(envelope: Envelope) -> Message:
    return ConnectionAck(optional_payload(envelope))


def _decode_ping(envelope: Envelope) -> Message:
    return Ping(optional_payload(envelope))


def _decode_pong(envelope: Envelope) -> Message:
    return Pong(optional_payload(envelope))


def decode_subscribe(envelope: Envelope) -> Subscribe:
    """Decode a ``subscribe``, or the ``start`` of the legacy protocol."""
    id_ = operation_id(envelope)
    if envelope.payload is _ABSENT:
        raise InvalidMessage(f"{envelope.type}: the payload is missing")
    raw = bytes(envelope.payload)
    try:
        payload = _subscribe_payload.decode(raw)
        id_.encode()
    except UnicodeEncodeError:
        raise InvalidPayload(id_, f"{envelope.type}: the id holds one half of a surrogate pair") from None
    except (msgspec.DecodeError, RecursionError) as error:
        reason = f"{envelope.type}: invalid payload: {json_defect(raw) or error}"
        raise InvalidPayload(id_, reason) from None
    query = payload.query
    if isinstance(query, msgspec.UnsetType):
        raise InvalidMessage(f"{envelope.type}: the payload has no query")
    return Subscribe(id_, query, payload.variables, payload.operation_name, payload.extensions)


def decode_next(envelope: Envelope) -> Next:
    """Decode a ``next``, or the ``data`` of the legacy protocol."""
    # Nothing at all fits no event type either.
    payload = b"null" if envelope.payload is _ABSENT else bytes(envelope.payload)
    return Next(operation_id(envelope), payload)


def _decode_error(envelope: Envelope) -> Message:
    payload = b"[]" if envelope.payload is _ABSENT else bytes(envelope.payload)
    return Error(operation_id(envelope), read_error_payload(payload))


def _decode_complete(envelope: Envelope) -> Message:
    return Complete(operation_id(envelope))


def _read_leniently(data: bytes, error: InvalidMessage) -> Envelope:
    """Read the envelope of a message whose payload may hold what no payload may.

    :raises InvalidMessage: the given one; the message belongs to no operation.
    """
    payload = _ABSENT
    try:
        value = read_leniently(data)
        members = value if isinstance(value, dict) else {}
        if "payload" in members:
            payload = msgspec.Raw(json.dumps(members["payload"]).encode())
    except RecursionError:
        front = _FRONT.match(data)
        if front is None:
            raise error from None
        members = {front[1].decode(): front[2].decode(), front[3].decode(): front[4].decode()}
        payload = msgspec.Raw(data[front.end() :].rstrip()[:-1])
    except ValueError:
        raise error from None
    kind = members.get("type")
    if not isinstance(kind, str) or kind not in _OF_OPERATIONS:
        raise error from None
    return Envelope(kind, members.get("id"), payload)


# Messages of which only the payload can be at fault once their id is read; the others are the connection's.
_OF_OPERATIONS: Final = frozenset({"subscribe", "next", "error", "complete", "start", "data", "stop"})

_DECODERS: Final[Mapping[str, Callable[[Envelope], Message | None]]] = {
    "connection_init": _decode_connection_init,
    "connection_ack": _decode_connection_ack,
    "ping": _decode_ping,
    "pong": _decode_pong,
    "subscribe": decode_subscribe,
    "next": decode_next,
    "error": _decode_error,
    "complete": _decode_complete,
}
