"""The conversation with a peer, whichever the role: what was said, what is to be said, and how it ends."""

from __future__ import annotations

from collections.abc import Set
from typing import Generic, TypeVar

import msgspec

from circuit_breaker_sdk.errors import UsageError
from circuit_breaker_sdk.protocol.close_codes import close_reason, is_sendable
from circuit_breaker_sdk.protocol.codec import encode_message
from circuit_breaker_sdk.protocol.messages import Ping, Pong
from circuit_breaker_sdk.protocol.transitions import ClientEvent, ClientState, ServerEvent, ServerState

__all__ = ["Close", "Conversation"]

StateT = TypeVar("StateT", bound=ServerState | ClientState)
EventT = TypeVar("EventT", bound=ServerEvent | ClientEvent)


class Close(msgspec.Struct, frozen=True):
    """The close that the transport has to make.

    :ivar code: a code that a close frame may carry.
    :ivar reason: at most 123 bytes of UTF-8.
    :ivar after_seconds: how long to wait with it, once all is written.

    Example::

        Close(4400, "unknown message type 'hello'")
    """

    code: int
    reason: str
    after_seconds: float = 0.0


class Conversation(Generic[StateT, EventT]):
    """One role's conversation: a state, an inbox, an outbox, one form of its messages, and one way to close.

    Example::

        conversation = Conversation(ClientState.CONNECTED, ClientState.CLOSED)
        conversation.send_ping()
        conversation.data_to_send()         # [b'{"type":"ping"}']
    """

    __slots__ = ("_closed_state", "_events", "_operations", "_outbox", "_state", "answers_pings", "close")

    _encode = staticmethod(encode_message)

    def __init__(self, initial: StateT, closed: StateT) -> None:
        self._state = initial
        self._closed_state = closed
        self._events: list[EventT] = []
        self._outbox: list[bytes] = []
        # A dictionary for a set: without entries it takes 64 bytes, not 216, and most connections have none.
        self._operations: dict[str, None] = {}
        self.answers_pings: bool = True
        """False while what is written is not read: a peer that pings and does not read gets no pongs."""
        self.close: Close | None = None

    @property
    def state(self) -> StateT:
        """The state of the conversation."""
        return self._state

    @property
    def operations(self) -> Set[str]:
        """The ids of the active operations: a live view, to be read only.

        After the end it still names what was active then, for whoever has to wind that up.
        """
        return self._operations.keys()

    def events_received(self) -> list[EventT]:
        """Take the events that have not been taken yet, in the order of their arrival."""
        events, self._events = self._events, []
        return events

    @property
    def messages_to_send(self) -> int:
        """The number of messages that :meth:`data_to_send` would return."""
        return len(self._outbox)

    def data_to_send(self) -> list[bytes]:
        """Take the text messages that have not been taken yet, in the order to write them."""
        data, self._outbox = self._outbox, []
        return data

    def receive_closed(self) -> None:
        """Note that the transport is gone: nothing is received or sent any more."""
        self._state = self._closed_state

    def send_ping(self, payload: dict[str, object] | None = None) -> None:
        """Ask for a pong; allowed in every state, without effect once closed."""
        if self._state is not self._closed_state:
            self._outbox.append(encode_message(Ping(payload)))

    def send_close(self, code: int, reason: str = "", *, after_seconds: float = 0.0) -> None:
        """End the conversation; without effect once closed. What is queued is still to be written.

        :raises UsageError: a close frame cannot carry this code.
        """
        if not is_sendable(code):
            raise UsageError(f"a close frame cannot carry the code {code}")
        if self._state is not self._closed_state:
            self.close = Close(int(code), close_reason(reason).decode(), after_seconds)
            self._state = self._closed_state

    def _answer(self, ping: Ping) -> None:
        if not self.answers_pings:
            return
        try:
            pong = encode_message(Pong(ping.payload))
        except UsageError:
            # Nested so deep that it could just be read but not be written: a pong needs no payload.
            pong = encode_message(Pong())
        self._outbox.append(pong)
