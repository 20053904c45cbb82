"""Bytes to messages and back, for ``graphql-transport-ws``.

Read liberally: unknown keys, any order of keys, any whitespace, ``ka``, sloppy details inside a GraphQL
error. Read strictly: a field that the message needs and that is missing or of another type is an
:class:`InvalidMessage`. Write one form only: keys in the order ``id``, ``type``, ``payload``, no
whitespace, nothing that is ``None``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final, TypeVar

import msgspec

from circuit_breaker_sdk.errors import GraphQLError, UsageError
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

__all__ = ["InvalidMessage", "decode_message", "encode_message", "next_prefix"]

T = TypeVar("T")

_MAX_SHOWN_TYPE = 32  # characters of a peer's unknown type that a close reason repeats


class InvalidMessage(Exception):
    """What arrived is no message of the protocol.

    :ivar reason: a short text for the close frame; no payload is repeated in it.
    """

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(reason)


# The JSON decoder takes `Raw | None` for `None` alone; an absent field is told by this very object.
_ABSENT: Final = msgspec.Raw()


class _Envelope(msgspec.Struct, gc=False):
    type: str
    # Only some messages have an id; in the others a stray one of any type does no harm.
    id: object = None
    payload: msgspec.Raw = _ABSENT


class _SubscribePayload(msgspec.Struct, gc=False, rename={"operation_name": "operationName"}):
    query: str
    variables: dict[str, object] | None = None
    operation_name: str | None = None
    extensions: dict[str, object] | None = None


class _ErrorEntry(msgspec.Struct):
    message: str
    path: msgspec.Raw = _ABSENT
    locations: msgspec.Raw = _ABSENT
    extensions: msgspec.Raw = _ABSENT


_envelope: Final = msgspec.json.Decoder(_Envelope)
_object: Final = msgspec.json.Decoder(dict[str, object])
_object_or_null: Final = msgspec.json.Decoder(dict[str, object] | None)
_subscribe_payload: Final = msgspec.json.Decoder(_SubscribePayload)
_error_entries: Final = msgspec.json.Decoder(list[_ErrorEntry])
_path: Final = msgspec.json.Decoder(tuple[str | int, ...])
_locations: Final = msgspec.json.Decoder(tuple[dict[str, int], ...])
_encoder: Final = msgspec.json.Encoder()


def decode_message(data: bytes) -> Message | None:
    """Decode one text message; ``None`` for ``ka``, which some servers send under the modern protocol.

    Never raises anything but :class:`InvalidMessage`, whatever the bytes are (not UTF-8, not JSON, nested
    beyond the interpreter's limit, lone surrogates, numbers out of range).
    """
    # Parts we skip over are not looked at as text by the JSON decoder, hence the check of the whole.
    if not data.isascii():
        try:
            data.decode()
        except UnicodeDecodeError:
            raise InvalidMessage("the message is not valid UTF-8") from None
    try:
        envelope = _envelope.decode(data)
    except (msgspec.DecodeError, RecursionError) as error:
        raise InvalidMessage(f"not a message: {error}") from None
    kind = envelope.type
    decode = _DECODERS.get(kind)
    if decode is None:
        if kind == "ka":
            return None
        raise InvalidMessage(f"unknown message type {kind[:_MAX_SHOWN_TYPE]!r}")
    try:
        return decode(envelope)
    except (msgspec.DecodeError, RecursionError) as error:
        raise InvalidMessage(f"{kind}: invalid payload: {error}") from None


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
    return _encoder.encode({"id": id_, "type": kind, "payload": payload})


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


def _id(envelope: _Envelope) -> str:
    id_ = envelope.id
    if not isinstance(id_, str) or not id_:
        raise InvalidMessage(f"{envelope.type}: the id must be a string that is not empty")
    return id_


def _payload(envelope: _Envelope) -> msgspec.Raw:
    if envelope.payload is _ABSENT:
        raise InvalidMessage(f"{envelope.type}: the payload is missing")
    return envelope.payload


def _optional_payload(envelope: _Envelope) -> dict[str, object] | None:
    return None if envelope.payload is _ABSENT else _object_or_null.decode(envelope.payload)


def _decode_connection_init(envelope: _Envelope) -> Message:
    return ConnectionInit(_optional_payload(envelope))


def _decode_connection_ack(envelope: _Envelope) -> Message:
    return ConnectionAck(_optional_payload(envelope))


def _decode_ping(envelope: _Envelope) -> Message:
    return Ping(_optional_payload(envelope))


def _decode_pong(envelope: _Envelope) -> Message:
    return Pong(_optional_payload(envelope))


def _decode_subscribe(envelope: _Envelope) -> Message:
    id_ = _id(envelope)
    payload = _subscribe_payload.decode(_payload(envelope))
    return Subscribe(id_, payload.query, payload.variables, payload.operation_name, payload.extensions)


def _decode_next(envelope: _Envelope) -> Message:
    id_ = _id(envelope)
    payload = bytes(_payload(envelope))
    if not payload.startswith(b"{"):
        raise InvalidMessage("next: the payload must be an object")
    return Next(id_, payload)


def _decode_error(envelope: _Envelope) -> Message:
    id_ = _id(envelope)
    entries = _error_entries.decode(_payload(envelope))
    return Error(
        id_,
        tuple(
            GraphQLError(
                message=entry.message,
                path=_if_it_fits(_path, entry.path),
                locations=_if_it_fits(_locations, entry.locations),
                extensions=_if_it_fits(_object, entry.extensions),
            )
            for entry in entries
        ),
    )


def _decode_complete(envelope: _Envelope) -> Message:
    return Complete(_id(envelope))


def _if_it_fits(decoder: msgspec.json.Decoder[T], raw: msgspec.Raw) -> T | None:
    # A server's slip in the details of an error must not hide its message, nor cost the connection.
    if raw is _ABSENT:
        return None
    try:
        return decoder.decode(raw)
    except (msgspec.DecodeError, RecursionError):
        return None


_DECODERS: Final[Mapping[str, Callable[[_Envelope], Message]]] = {
    "connection_init": _decode_connection_init,
    "connection_ack": _decode_connection_ack,
    "ping": _decode_ping,
    "pong": _decode_pong,
    "subscribe": _decode_subscribe,
    "next": _decode_next,
    "error": _decode_error,
    "complete": _decode_complete,
}
