"""Both roles of the legacy protocol ``graphql-ws`` (subscriptions-transport-ws), as those of the modern one.

Its messages are translated: ``start`` is ``subscribe``, ``data`` is ``next``, ``stop`` is ``complete`` from a
client, and ``ka``, which asks for no answer, is reported as a ``pong``. What one of the reference's own
programs does where the protocol says nothing is done here too: an ``error`` has one object for its payload,
an id that is started again is ended first, an unknown message is answered with an ``error``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, final

import msgspec

from circuit_breaker_sdk.errors import GraphQLError
from circuit_breaker_sdk.protocol.close_codes import CloseCode
from circuit_breaker_sdk.protocol.codec import (
    Envelope,
    InvalidMessage,
    InvalidPayload,
    decode_by_type,
    decode_next,
    decode_subscribe,
    encode_message,
    next_prefix,
    operation_id,
    optional_payload,
)
from circuit_breaker_sdk.protocol.error_payload import read_error_payload
from circuit_breaker_sdk.protocol.messages import (
    LEGACY_SUBPROTOCOL,
    Complete,
    ConnectionAck,
    ConnectionInit,
    Error,
    Message,
    Next,
    Pong,
    Subscribe,
    UnreadableSubscribe,
)
from circuit_breaker_sdk.protocol.transitions import ClientEvent, ClientState, ServerEvent, ServerState
from circuit_breaker_sdk.protocol.transport_ws import ClientProtocol, ServerProtocol

__all__ = ["LegacyClientProtocol", "LegacyServerProtocol", "client_protocol"]

_REFUSAL_SECONDS: Final = 0.01
"""Between ``connection_error`` and the close, as the reference has it."""

_KEEP_ALIVE: Final = b'{"type":"ka"}'
_UNKNOWN: Final = "Invalid message type!"


class _Refusal(msgspec.Struct, frozen=True):
    """A ``connection_error``."""

    reason: str


class _Terminate(msgspec.Struct, frozen=True):
    """A ``connection_terminate``."""


class _Unknown(msgspec.Struct, frozen=True):
    """A message of a type that a client does not send; its id, if it has one."""

    id: object


_ClientMessage = ServerEvent | _Terminate | _Unknown
_ServerMessage = ClientEvent | _Refusal | None


class LegacyServerProtocol(ServerProtocol):
    """The server's half of one connection; the first ``ka`` goes out right behind the acknowledgement.

    Example::

        protocol = LegacyServerProtocol()
        protocol.receive_message(b'{"type":"connection_init"}')
        protocol.send_ack()
        protocol.data_to_send()             # [b'{"type":"connection_ack"}', b'{"type":"ka"}']
    """

    __slots__ = ()

    def receive_message(self, data: bytes) -> None:
        """Take one text message. Never raises: a peer's mistake sets ``close``.

        An operation that the client stops is reported as completed, with our ``complete`` already queued.
        """
        if self._state is ServerState.CLOSED:
            return
        message: _ClientMessage
        try:
            message = decode_by_type(data, _FROM_CLIENT, otherwise=_decode_unknown)
        except InvalidPayload as error:
            message = UnreadableSubscribe(error.id, error.reason)
        except InvalidMessage as error:
            self.send_close(CloseCode.BAD_REQUEST, error.reason)
            return
        if isinstance(message, _Terminate):
            self.send_close(CloseCode.NORMAL)
        elif isinstance(message, _Unknown):
            self._outbox.append(_unknown_message(message))
        else:
            if isinstance(message, Complete):
                if message.id in self._operations:
                    self._outbox.append(self._encode(message))
            elif isinstance(message, Subscribe | UnreadableSubscribe) and message.id in self._operations:
                del self._operations[message.id]
                self._events.append(Complete(message.id))
            self._take(message)

    def send_ack(self, payload: dict[str, object] | None = None) -> bool:
        """Accept the client; ``False`` if the conversation has ended meanwhile.

        :raises UsageError: there is no ``connection_init`` to answer.
        """
        is_accepted = super().send_ack(payload)
        if is_accepted:
            self._outbox.append(_KEEP_ALIVE)
        return is_accepted

    def send_refuse(self, reason: str = "Forbidden") -> bool:
        """Refuse the client: ``connection_error``, then 4403 a little later; ``False`` as ``send_ack``.

        :raises UsageError: there is no ``connection_init`` to answer.
        """
        if not self._is_initialising("send_refuse"):
            return False
        error = msgspec.json.encode({"message": reason.encode("utf-8", "replace").decode()})
        self._outbox.append(b'{"type":"connection_error","payload":' + error + b"}")
        self.send_close(CloseCode.FORBIDDEN, reason, after_seconds=_REFUSAL_SECONDS)
        return True

    def send_ping(self, payload: dict[str, object] | None = None) -> None:
        """Send ``ka``; what a ``ping`` would tell has no place in this protocol, and is not sent."""
        if payload is None and self._state is not ServerState.CLOSED:
            self._outbox.append(_KEEP_ALIVE)

    def event_prefix(self, id: str) -> bytes:  # noqa: A002 (the protocol's own word)
        """Build what precedes the payload in every ``data`` of one operation."""
        return _renamed(next_prefix(id), b"next", b"data")

    @staticmethod
    def _encode(message: Message) -> bytes:
        if isinstance(message, Next):
            return _renamed(encode_message(message), b"next", b"data")
        return _encode_error(message) if isinstance(message, Error) else encode_message(message)


@final
class LegacyClientProtocol(ClientProtocol):
    """The client's half of one connection.

    A ``ka`` is reported as a ``Pong``. A ``connection_error`` before the acknowledgement sets a ``close`` of
    4403 with the server's text, a later one of 4400.

    Example::

        protocol = LegacyClientProtocol()
        protocol.send_init()
        protocol.receive_message(b'{"type":"connection_ack"}')
        protocol.send_subscribe(Subscribe(id="1", query="subscription { resourceUpdates { id } }"))
        protocol.data_to_send()[-1]         # b'{"id":"1","type":"start","payload":{"query":…}}'
    """

    __slots__ = ()

    def receive_message(self, data: bytes) -> None:
        """Take one text message. Never raises: a peer's mistake sets ``close``.

        Messages about operations that are no longer active are dropped, among them the ``complete`` that
        answers a ``stop``.
        """
        if self._state is ClientState.CLOSED:
            return
        try:
            message = decode_by_type(data, _FROM_SERVER, otherwise=_decode_not_a_servers)
        except InvalidMessage as error:
            self.send_close(CloseCode.BAD_REQUEST, error.reason)
            return
        if isinstance(message, _Refusal):
            is_ready = self._state is ClientState.READY
            self.send_close(CloseCode.BAD_REQUEST if is_ready else CloseCode.FORBIDDEN, message.reason)
        elif message is not None:
            self._take(message)

    def send_ping(self, payload: dict[str, object] | None = None) -> None:
        """Send nothing: a client of this protocol has nothing to ask with."""

    @staticmethod
    def _encode(message: Message) -> bytes:
        if isinstance(message, Subscribe):
            return _renamed(encode_message(message), b"subscribe", b"start")
        if isinstance(message, Complete):
            return _renamed(encode_message(message), b"complete", b"stop")
        return encode_message(message)


def client_protocol(modern: ClientProtocol, subprotocol: str | None) -> ClientProtocol:
    """Return what speaks the subprotocol that was agreed on: the modern one given, or a legacy one."""
    return LegacyClientProtocol() if subprotocol == LEGACY_SUBPROTOCOL else modern


def _renamed(message: bytes, modern: bytes, legacy: bytes) -> bytes:
    """Rename the type of a message of ours; in an id each quote has a backslash before it."""
    return message.replace(b'"type":"%b"' % modern, b'"type":"%b"' % legacy, 1)


def _encode_error(message: Error) -> bytes:
    """Encode an ``error``: its payload is the first error, with all of them in it where there are more."""
    head, _, listed = encode_message(message).partition(b'"payload":')
    errors = msgspec.json.decode(listed[:-1], type=list[dict[str, object]])
    first = errors[0] if errors else {"message": "the operation failed"}
    payload = first if len(errors) < 2 else first | {"errors": errors}
    return head + b'"payload":' + msgspec.json.encode(payload) + b"}"


def _unknown_message(message: _Unknown) -> bytes:
    error = GraphQLError(message=_UNKNOWN)
    if isinstance(message.id, str) and message.id:
        return _encode_error(Error(message.id, (error,)))
    return b'{"type":"error","payload":' + msgspec.json.encode({"message": _UNKNOWN}) + b"}"


def _decode_unknown(envelope: Envelope) -> _ClientMessage:
    return _Unknown(envelope.id)


def _decode_init(envelope: Envelope) -> _ClientMessage:
    return ConnectionInit(optional_payload(envelope))


def _decode_start(envelope: Envelope) -> _ClientMessage:
    id_ = operation_id(envelope)
    try:
        return decode_subscribe(envelope)
    except InvalidMessage as error:
        # An `InvalidPayload` too: whatever is wrong in it, it is this operation's.
        raise InvalidPayload(id_, error.reason) from None


def _decode_stop(envelope: Envelope) -> _ClientMessage:
    return Complete(operation_id(envelope))


def _decode_terminate(_envelope: Envelope) -> _ClientMessage:
    return _Terminate()


def _decode_not_a_servers(_envelope: Envelope) -> _ServerMessage:
    raise InvalidMessage("this message is not a server's")


def _decode_ack(_envelope: Envelope) -> _ServerMessage:
    # What is in it is the application's: nothing was asked for.
    return ConnectionAck()


def _decode_refusal(envelope: Envelope) -> _ServerMessage:
    errors = read_error_payload(bytes(envelope.payload) or b"[]")
    return _Refusal("; ".join(error.message for error in errors))


def _decode_keep_alive(_envelope: Envelope) -> _ServerMessage:
    return Pong()


def _decode_error(envelope: Envelope) -> _ServerMessage:
    # Without an id it answers a message that no operation of ours has sent.
    if envelope.id is None:
        return None
    return Error(operation_id(envelope), read_error_payload(bytes(envelope.payload) or b"[]"))


def _decode_complete(envelope: Envelope) -> _ServerMessage:
    return Complete(operation_id(envelope))


_FROM_CLIENT: Final[Mapping[str, Callable[[Envelope], _ClientMessage]]] = {
    "connection_init": _decode_init,
    "start": _decode_start,
    "stop": _decode_stop,
    "connection_terminate": _decode_terminate,
}

_FROM_SERVER: Final[Mapping[str, Callable[[Envelope], _ServerMessage]]] = {
    "connection_ack": _decode_ack,
    "connection_error": _decode_refusal,
    "ka": _decode_keep_alive,
    "data": decode_next,
    "error": _decode_error,
    "complete": _decode_complete,
}
