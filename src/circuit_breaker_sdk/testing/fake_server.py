"""A WebSocket server that speaks ``graphql-transport-ws`` and says what a test tells it to."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from types import TracebackType
from typing import Final, Self, final

import msgspec
from picows import WSUpgradeRequest, WSUpgradeResponse, WSUpgradeResponseWithListener

from circuit_breaker_sdk.config import MessageLimits
from circuit_breaker_sdk.errors import GraphQLError, UsageError
from circuit_breaker_sdk.protocol.messages import SUBPROTOCOL, Complete, ConnectionInit, Subscribe
from circuit_breaker_sdk.protocol.transport_ws import ServerProtocol
from circuit_breaker_sdk.transports.frame_protocol import ServerFrameProtocol, frame_protocol_arguments
from circuit_breaker_sdk.transports.websocket import MessageSink, ServerListener, WebSocket

__all__ = ["FakeServer"]

_EPOCH: Final = "fake"
_LIMITS: Final = MessageLimits()
_CLOSE_SECONDS: Final = 1.0
_HANDSHAKE_SECONDS: Final = 10.0


@final
class FakeServer:
    """Stand in for a GraphQL server in tests of programs that subscribe.

    It listens on a free port of the loopback interface. An event goes to every operation whose document names
    its root field; arguments and selections are not looked at. Queries and mutations are not answered.

    :ivar resume: whether the resume extension is offered: cursors, the live signal, replay after a cursor.
    :ivar is_silent: it takes messages and answers none, not even the first.
    :ivar refuses: new connections are closed with 4403 instead of acknowledged.
    :ivar subscriptions: every operation that was asked for, in order; ``extensions`` holds the cursor.

    Example::

        async with FakeServer() as server, Client(server.url) as client:
            updates = await client.subscriptions.resource_updates().subscribe()
            server.publish({"resourceUpdates": {"id": "r1", "state": "done"}})
            server.close(1012)                      # the client comes again, and misses nothing
            assert len(server.subscriptions) == 1
    """

    def __init__(self, *, resume: bool = True) -> None:
        """``async with`` or :meth:`start` begins to listen."""
        self.resume: bool = resume
        self.is_silent: bool = False
        self.refuses: bool = False
        self.subscriptions: list[Subscribe] = []
        self._events: list[dict[str, object]] = []
        self._forgotten = 0
        self._sessions: set[_Session] = set()
        self._listener: asyncio.Server | None = None

    @property
    def url(self) -> str:
        """Where it listens.

        :raises UsageError: it has not been started, or is closed.
        """
        if self._listener is None:
            raise UsageError("the server is not listening: start it, or use it as `async with`")
        return f"ws://127.0.0.1:{self._listener.sockets[0].getsockname()[1]}/graphql"

    @property
    def connections(self) -> int:
        """How many sockets are open."""
        return len(self._sessions)

    async def start(self) -> None:
        """Begin to listen; once more does nothing."""
        if self._listener is None:
            arguments = frame_protocol_arguments(
                self._answer,
                max_frame_bytes=_LIMITS.max_message_bytes,
                handshake_seconds=_HANDSHAKE_SECONDS,
            )
            loop = asyncio.get_running_loop()
            self._listener = await loop.create_server(lambda: ServerFrameProtocol(*arguments), "127.0.0.1", 0)

    async def aclose(self) -> None:
        """Drop what is open and stop listening. Safe to call twice."""
        listener, self._listener = self._listener, None
        if listener is not None:
            listener.close()
        sessions = tuple(self._sessions)
        self.drop()
        for session in sessions:
            await session.socket.wait_closed()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    def publish(self, data: Mapping[str, object]) -> None:
        """Send an event, ``{root field: value}``, to those who asked for the field; keep it for a resume.

        :raises UsageError: it has not exactly one root field.
        """
        if len(data) != 1:
            raise UsageError(f"an event has one root field, not {len(data)}")
        self._events.append(dict(data))
        for session in tuple(self._sessions):
            session.send_events()

    def forget(self) -> None:
        """Forget what was published: who resumes behind a part of it is told of a gap, ``trimmed``."""
        self._forgotten = len(self._events)

    def fail(self, message: str, *, code: str | None = None) -> None:
        """End every operation with an error."""
        extensions: dict[str, object] | None = None if code is None else {"code": code}
        for session in tuple(self._sessions):
            session.end(GraphQLError(message=message, extensions=extensions))

    def complete(self) -> None:
        """End every operation: its stream is over."""
        for session in tuple(self._sessions):
            session.end(None)

    def close(self, code: int, reason: str = "") -> None:
        """Close every connection with a code, after what was written so far."""
        for session in tuple(self._sessions):
            session.socket.close(code, reason)

    def drop(self) -> None:
        """Drop every connection without a word."""
        for session in tuple(self._sessions):
            session.socket.abort()

    def _answer(self, _request: WSUpgradeRequest) -> WSUpgradeResponseWithListener:
        listener = ServerListener(
            self._open, limits=_LIMITS, close_seconds=_CLOSE_SECONDS, subprotocol=SUBPROTOCOL
        )
        answer = WSUpgradeResponse.create_101_response({"Sec-WebSocket-Protocol": SUBPROTOCOL})
        return WSUpgradeResponseWithListener(answer, listener)

    def _open(self, socket: WebSocket) -> MessageSink:
        session = _Session(self, socket)
        self._sessions.add(session)
        return session


@final
class _Operation(msgspec.Struct):
    """What is told to one subscriber: ``at`` counts the events it is past, ``prev`` the last one sent."""

    query: str
    at: int
    prev: int


@final
class _Session:
    """One socket."""

    def __init__(self, server: FakeServer, socket: WebSocket) -> None:
        self.socket = socket
        self._server = server
        self._protocol = ServerProtocol()
        self._operations: dict[str, _Operation] = {}
        self._resume = False

    def on_message(self, data: bytes) -> None:
        server = self._server
        if server.is_silent:
            return
        self._protocol.receive_message(data)
        for event in self._protocol.events_received():
            if isinstance(event, ConnectionInit):
                self._on_init(event)
            elif isinstance(event, Subscribe):
                self._on_subscribe(event)
            elif isinstance(event, Complete):
                self._operations.pop(event.id, None)
        self._send()
        self.send_events()

    def on_writable(self, writable: bool) -> None:
        """Ignore it: a test publishes little."""

    def on_closed(self, code: int, reason: str) -> None:  # noqa: ARG002 (what ends it does not matter)
        self._protocol.receive_closed()
        self._server._sessions.discard(self)  # noqa: SLF001 (one thing in two classes)

    def send_events(self) -> None:
        """Send what is new."""
        events = self._server._events  # noqa: SLF001 (as above)
        for id_, operation in self._operations.items():
            for at in range(operation.at, len(events)):
                (field,) = events[at]
                if re.search(rf"\b{re.escape(field)}\b", operation.query):
                    payload: dict[str, object] = {"data": events[at]}
                    if self._resume:
                        resume = {"cursor": _cursor(at + 1), "prev": _cursor(operation.prev)}
                        payload["extensions"] = {"resume": resume}
                    self._protocol.send_next(id_, msgspec.json.encode(payload))
                    operation.prev = at + 1
            operation.at = len(events)
        self._send()

    def end(self, error: GraphQLError | None) -> None:
        """End every operation."""
        for id_ in self._operations:
            if error is None:
                self._protocol.send_complete(id_)
            else:
                self._protocol.send_error(id_, [error])
        self._operations.clear()
        self._send()

    def _on_init(self, event: ConnectionInit) -> None:
        if self._server.refuses:
            self._protocol.send_refuse()
            return
        self._resume = self._server.resume and "resume" in (event.payload or {})
        self._protocol.send_ack({"resume": {"version": 1, "epoch": _EPOCH}} if self._resume else None)

    def _on_subscribe(self, event: Subscribe) -> None:
        server = self._server
        server.subscriptions.append(event)
        start = len(server._events)  # noqa: SLF001 (as above)
        if self._resume:
            asked = (event.extensions or {}).get("resume")
            after = asked.get("after") if isinstance(asked, dict) else None
            if after is not None:
                epoch, _, number = str(after).partition(".")
                known = epoch == _EPOCH and number.isdecimal() and int(number) <= start
                if not known or int(number) < server._forgotten:  # noqa: SLF001 (as above)
                    gap: dict[str, object] = {"code": "RESUME_GAP", "reason": "trimmed" if known else "epoch"}
                    self._protocol.send_error(event.id, [GraphQLError(message="a gap", extensions=gap)])
                    return
                start = int(number)
            self._protocol.send_ping({"resume": {"id": event.id, "cursor": _cursor(start)}})
        self._operations[event.id] = _Operation(event.query, start, start)

    def _send(self) -> None:
        self.socket.send_messages(self._protocol.data_to_send())
        close = self._protocol.close
        if close is not None:
            self.socket.close(close.code, close.reason)


def _cursor(count: int) -> str:
    return f"{_EPOCH}.{count}"
