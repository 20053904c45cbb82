"""Both roles of ``graphql-transport-ws``, without a socket, a clock or a task.

Give a role what arrives (``receive_*``) and what is wanted (``send_*``); then take what happened
(``events_received``) and what is to be written (``data_to_send``), and close the transport once ``close`` is
set. The order is always: write ``data_to_send()``, then close.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from circuit_breaker_sdk.errors import GraphQLError, UsageError
from circuit_breaker_sdk.protocol.close_codes import CloseCode
from circuit_breaker_sdk.protocol.codec import (
    ConnectionRefused,
    InvalidMessage,
    InvalidPayload,
    decode_message,
    encode_message,
    next_prefix,
)
from circuit_breaker_sdk.protocol.conversation import Conversation
from circuit_breaker_sdk.protocol.messages import (
    Complete,
    ConnectionAck,
    ConnectionInit,
    Error,
    Message,
    Next,
    Ping,
    Subscribe,
    UnreadableSubscribe,
)
from circuit_breaker_sdk.protocol.transitions import (
    CLIENT_TRANSITIONS,
    SERVER_TRANSITIONS,
    ClientEvent,
    ClientState,
    ServerEvent,
    ServerState,
)

__all__ = [
    "ClientEvent",
    "ClientProtocol",
    "ClientState",
    "ServerEvent",
    "ServerProtocol",
    "ServerState",
]

_REASONS: Final[Mapping[CloseCode, str]] = {
    CloseCode.UNAUTHORIZED: "Unauthorized: subscribe before the connection was acknowledged",
    CloseCode.TOO_MANY_INIT: "Too many initialisation requests",
}


class ServerProtocol(Conversation[ServerState, ServerEvent]):
    """The server's half of one connection.

    :param max_operations: active operations at a time; one more is answered with an ``error`` message of
        code ``TOO_MANY_OPERATIONS``, and the connection lives on.
    :param max_id_bytes: longest operation id, in UTF-8; a longer one closes 4400.

    Example::

        protocol = ServerProtocol()
        protocol.receive_message(b'{"type":"connection_init"}')
        protocol.events_received()          # [ConnectionInit(payload=None)]
        protocol.send_ack()
        protocol.data_to_send()             # [b'{"type":"connection_ack"}']
    """

    __slots__ = ("_max_id_bytes", "_max_operations")

    def __init__(self, *, max_operations: int = 2000, max_id_bytes: int = 128) -> None:
        super().__init__(ServerState.AWAITING_INIT, ServerState.CLOSED)
        self._max_operations = max_operations
        self._max_id_bytes = max_id_bytes

    def receive_message(self, data: bytes) -> None:
        """Take one text message. Never raises: a peer's mistake sets ``close``.

        A ``subscribe`` is reported with its id already reserved, and so is one whose payload cannot be read
        (:class:`UnreadableSubscribe`, to be answered with ``send_error``); a ``complete`` only for an active
        id, which is free by then, a ``ping`` when its pong is already queued (see ``answers_pings``).
        """
        if self._state is ServerState.CLOSED:
            return
        message: Message | UnreadableSubscribe | None
        try:
            message = decode_message(data)
        except InvalidPayload as error:
            message = UnreadableSubscribe(error.id, error.reason)
        except InvalidMessage as error:
            self.send_close(CloseCode.BAD_REQUEST, error.reason)
            return
        if message is None or isinstance(message, ConnectionAck | Next | Error):
            self.send_close(CloseCode.BAD_REQUEST, "this message is not a client's")
        else:
            self._take(message)

    def _take(self, message: ServerEvent) -> None:
        """Move the conversation by a message of a client."""
        kind = Subscribe if isinstance(message, UnreadableSubscribe) else type(message)
        transition = SERVER_TRANSITIONS[self._state, kind]
        if isinstance(transition, CloseCode):
            self.send_close(transition, _REASONS[transition])
            return
        self._state = transition
        if isinstance(message, Subscribe | UnreadableSubscribe):
            self._reserve(message)
        elif isinstance(message, Complete):
            # Unknown ids are no mistake: our own `complete` and the peer's may cross in flight.
            if message.id in self._operations:
                del self._operations[message.id]
                self._events.append(message)
        else:
            if isinstance(message, Ping):
                self._answer(message)
            self._events.append(message)

    def receive_init_timeout(self) -> None:
        """Note that the time for ``connection_init`` is over: closes 4408 unless one was received."""
        if self._state is ServerState.AWAITING_INIT:
            self.send_close(CloseCode.INIT_TIMEOUT, "Connection initialisation timeout")

    def send_ack(self, payload: dict[str, object] | None = None) -> bool:
        """Accept the client; ``False`` if the conversation has ended meanwhile.

        :raises UsageError: there is no ``connection_init`` to answer.
        """
        if not self._is_initialising("send_ack"):
            return False
        ack = encode_message(ConnectionAck(payload))
        # Ready before the ack is on its way: the client's next message may be as fast as the ack itself.
        self._state = ServerState.READY
        self._outbox.append(ack)
        return True

    def send_refuse(self, reason: str = "Forbidden") -> bool:
        """Refuse the client: closes 4403; ``False`` if the conversation has ended meanwhile.

        :raises UsageError: there is no ``connection_init`` to answer.
        """
        if not self._is_initialising("send_refuse"):
            return False
        self.send_close(CloseCode.FORBIDDEN, reason)
        return True

    def send_next(self, id: str, payload: bytes) -> bool:  # noqa: A002 (the protocol's own word)
        """Send one encoded execution result; ``False``, and nothing sent, if the id is not active."""
        if not self._is_active(id):
            return False
        self._outbox.append(self._encode(Next(id, payload)))
        return True

    def event_prefix(self, id: str) -> bytes:  # noqa: A002 (as above)
        """Build what precedes the payload in every event of one operation."""
        return next_prefix(id)

    def send_error(self, id: str, errors: Sequence[GraphQLError]) -> bool:  # noqa: A002 (as above)
        """End an operation with errors and free its id; ``False`` if the id is not active."""
        return self._end(Error(id, tuple(errors)))

    def send_complete(self, id: str) -> bool:  # noqa: A002 (as above)
        """End an operation and free its id; ``False`` if the id is not active.

        An id does not tell its user: a producer that outlives its operation must not end the one
        that has taken the id since.
        """
        return self._end(Complete(id))

    def _is_initialising(self, call: str) -> bool:
        if self._state in (ServerState.AWAITING_INIT, ServerState.READY):
            raise UsageError(f"{call} answers a connection_init, and none is waiting")
        return self._state is ServerState.INITIALISING

    def _is_active(self, id_: str) -> bool:
        return id_ in self._operations and self._state is not ServerState.CLOSED

    def _end(self, message: Error | Complete) -> bool:
        if not self._is_active(message.id):
            return False
        self._outbox.append(self._encode(message))
        del self._operations[message.id]
        return True

    def _reserve(self, message: Subscribe | UnreadableSubscribe) -> None:
        if len(message.id.encode("utf-8", "surrogatepass")) > self._max_id_bytes:
            self.send_close(CloseCode.BAD_REQUEST, f"subscribe: the id is over {self._max_id_bytes} bytes")
        elif message.id in self._operations:
            self.send_close(CloseCode.SUBSCRIBER_EXISTS, f"Subscriber for {message.id} already exists")
        elif len(self._operations) >= self._max_operations:
            error = GraphQLError(
                message=f"more than {self._max_operations} operations on one connection",
                extensions={"code": "TOO_MANY_OPERATIONS"},
            )
            self._outbox.append(self._encode(Error(message.id, (error,))))
        else:
            self._operations[message.id] = None
            self._events.append(message)


class ClientProtocol(Conversation[ClientState, ClientEvent]):
    """The client's half of one connection.

    Example::

        protocol = ClientProtocol()
        protocol.send_init()
        protocol.data_to_send()             # [b'{"type":"connection_init"}']
        protocol.receive_message(b'{"type":"connection_ack"}')
        protocol.send_subscribe(Subscribe(id="1", query="subscription { resourceUpdates { id } }"))
    """

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__(ClientState.CONNECTED, ClientState.CLOSED)

    def receive_message(self, data: bytes) -> None:
        """Take one text message. Never raises: a peer's mistake sets ``close``.

        Messages about operations that are no longer active are dropped: they were under way when the
        operation ended. A ``ping`` is reported when its pong is already queued. A ``connection_error`` before
        the acknowledgement, a message of the legacy protocol that some servers send in this one too, sets a
        ``close`` of 4403 with the server's text.
        """
        if self._state is ClientState.CLOSED:
            return
        try:
            message = decode_message(data)
        except ConnectionRefused as error:
            # mercurius refuses so.
            if self._state is ClientState.READY:
                self.send_close(CloseCode.BAD_REQUEST, error.reason)
            else:
                self.send_close(CloseCode.FORBIDDEN, error.said)
            return
        except InvalidMessage as error:
            self.send_close(CloseCode.BAD_REQUEST, error.reason)
            return
        if message is None:
            return
        if isinstance(message, ConnectionInit | Subscribe):
            self.send_close(CloseCode.BAD_REQUEST, "this message is not a server's")
        else:
            self._take(message)

    def _take(self, message: ClientEvent) -> None:
        """Move the conversation by a message of a server."""
        before = self._state
        transition = CLIENT_TRANSITIONS[before, type(message)]
        if isinstance(transition, CloseCode):
            self.send_close(transition, "unexpected message before the connection was acknowledged")
            return
        self._state = transition
        if isinstance(message, Next | Error | Complete):
            self._deliver(message)
        elif isinstance(message, ConnectionAck):
            if before is not transition:
                self._events.append(message)
        else:
            if isinstance(message, Ping):
                self._answer(message)
            self._events.append(message)

    def send_init(self, payload: dict[str, object] | None = None) -> None:
        """Open the conversation.

        :raises UsageError: it was opened or closed before, or the payload has no JSON form.
        """
        if self._state is not ClientState.CONNECTED:
            raise UsageError(f"connection_init is the first message, but the connection is {self._state}")
        data = encode_message(ConnectionInit(payload))
        self._state = ClientState.AWAITING_ACK
        self._outbox.append(data)

    def send_subscribe(self, message: Subscribe) -> None:
        """Start an operation under an id of its own.

        :raises UsageError: before the ack or after the end, for an id in use, or for variables without a
            JSON form; nothing is sent then.
        """
        if self._state is not ClientState.READY:
            raise UsageError(f"cannot subscribe: the connection is {self._state}, not ready")
        if not message.id or message.id in self._operations:
            raise UsageError(f"cannot subscribe: the operation id {message.id!r} is empty or in use")
        data = self._encode(message)
        self._operations[message.id] = None
        self._outbox.append(data)

    def send_complete(self, id: str) -> bool:  # noqa: A002 (the protocol's own word)
        """Stop an operation; ``False``, and nothing sent, if it has ended already."""
        if id not in self._operations or self._state is ClientState.CLOSED:
            return False
        del self._operations[id]
        self._outbox.append(self._encode(Complete(id)))
        return True

    def _deliver(self, message: Next | Error | Complete) -> None:
        if message.id not in self._operations:
            return
        if not isinstance(message, Next):
            del self._operations[message.id]
        self._events.append(message)
