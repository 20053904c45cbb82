"""A server that speaks ``graphql-transport-ws`` and GraphQL over HTTP, and says what a test tells it to."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Final, Self, cast, final

import msgspec
from aiohttp import web
from picows import WSUpgradeRequest, WSUpgradeResponse, WSUpgradeResponseWithListener

from circuit_breaker_sdk.config import MessageLimits
from circuit_breaker_sdk.errors import GraphQLError, UsageError
from circuit_breaker_sdk.protocol.messages import SUBPROTOCOL, Complete, ConnectionInit, Subscribe
from circuit_breaker_sdk.protocol.transport_ws import ServerProtocol
from circuit_breaker_sdk.transports.picows_protocol import ServerFrameProtocol, frame_protocol_arguments
from circuit_breaker_sdk.transports.websocket import MessageSink, ServerListener, WebSocket

__all__ = ["FakeRequest", "FakeServer"]

_EPOCH: Final = "fake"
_LIMITS: Final = MessageLimits()
_CLOSE_SECONDS: Final = 1.0
_HANDSHAKE_SECONDS: Final = 10.0


class FakeRequest(msgspec.Struct, frozen=True, rename="camel"):
    """A query or mutation that was asked for."""

    query: str
    variables: dict[str, object] | None = None
    operation_name: str | None = None


@final
class FakeServer:
    """Stand in for a GraphQL server in tests of programs that subscribe.

    It listens on a free port of the loopback interface. An event goes to every operation whose document names
    its root field; arguments and selections are not looked at. A query or mutation is answered, over HTTP, by
    what :meth:`answer` gave its root field. Values are plain, with the schema's names, or the SDK's types.

    :ivar resume: whether the resume extension is offered: cursors, the live signal, replay after a cursor.
    :ivar is_silent: it takes messages and answers none, not even the first.
    :ivar refuses: new connections are closed with 4403 instead of acknowledged.
    :ivar subscriptions: every operation that was asked for, in order; ``extensions`` holds the cursor.
    :ivar requests: every query and mutation, in order.

    Example::

        async with FakeServer() as server, Client(server.url) as client:
            server.answer({"budgetStatus": {"budgetId": "user:ada", "limit": 5.0, ...}})
            budget = await client.analytics.budget_status(user_id="ada")
            updates = await client.subscriptions.cost_updates().subscribe()
            server.publish({"costUpdates": CostUpdate(user_id="ada", cost_delta=0.5, ...)})
            server.close(1012)                      # the client comes again, and misses nothing
            assert server.requests[0].variables == {"userId": "ada"}
    """

    def __init__(self, *, resume: bool = True) -> None:
        """``async with`` or :meth:`start` begins to listen."""
        self.resume: bool = resume
        self.is_silent: bool = False
        self.refuses: bool = False
        self.subscriptions: list[Subscribe] = []
        self.requests: list[FakeRequest] = []
        self._answers: dict[str, object] = {}
        self._http: web.Server | None = None
        self._events: list[dict[str, object]] = []
        self._forgotten = 0
        self._sessions: set[_Session] = set()
        self._listener: asyncio.Server | None = None

    @property
    def url(self) -> str:
        """The URL of the server.

        :raises UsageError: it has not been started, or is closed.
        """
        if self._listener is None:
            raise UsageError("the server is not listening: start it, or use it as `async with`")
        return f"ws://127.0.0.1:{self._listener.sockets[0].getsockname()[1]}/graphql"

    @property
    def connections(self) -> int:
        """The number of open sockets."""
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
            http = self._http = web.Server(self._answer_request)

            def accept() -> asyncio.BaseProtocol:
                return _Door(lambda: ServerFrameProtocol(*arguments), http)

            self._listener = await loop.create_server(accept, "127.0.0.1", 0)

    async def aclose(self) -> None:
        """Drop what is open and stop listening. Safe to call twice."""
        listener, self._listener = self._listener, None
        if listener is not None:
            listener.close()
        sessions = tuple(self._sessions)
        self.drop()
        for session in sessions:
            await session.socket.wait_closed()
        if self._http is not None:
            await self._http.shutdown(_CLOSE_SECONDS)

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
        """Send an event, ``{root field: value}``, to the subscriptions of the field; keep it for a resume.

        :param data: the value is plain, with the schema's names (``{"oldStatus": "ONLINE"}``), or an event of
            the SDK: ``MCPServerStatusUpdate(old_status="ONLINE", …)``.
        :raises UsageError: it has not exactly one root field.
        """
        if len(data) != 1:
            raise UsageError(f"an event has one root field, not {len(data)}")
        self._events.append(dict(data))
        for session in tuple(self._sessions):
            session.send_events()

    def answer(self, data: Mapping[str, object]) -> None:
        """Answer each query or mutation for a root field by its value from now on: ``{root field: value}``.

        :param data: values as :meth:`publish` takes them; a :class:`GraphQLError` answers with that error.
        """
        self._answers.update(data)

    def forget(self) -> None:
        """Forget the published events: a client that resumes before them gets a gap, ``trimmed``."""
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

    async def _answer_request(self, request: web.BaseRequest) -> web.StreamResponse:
        try:
            asked = msgspec.json.decode(await request.read(), type=FakeRequest)
        except msgspec.DecodeError as error:
            return web.Response(status=400, text=f"not a GraphQL request: {error}")
        self.requests.append(asked)
        named = [f for f in self._answers if re.search(rf"\b{re.escape(f)}\b", asked.query)]
        errors = [self._answers[f] for f in named if isinstance(self._answers[f], GraphQLError)]
        if not named:
            operation = asked.operation_name or asked.query
            errors = [
                GraphQLError(message=f"no answer for {operation}: server.answer({{root field: value}})")
            ]
        answer = {"errors": errors} if errors else {"data": {f: self._answers[f] for f in named}}
        return web.Response(body=msgspec.json.encode(answer), content_type="application/json")

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
class _Door(asyncio.Protocol):
    """Hand a socket on by its first byte: ``GET`` begins a WebSocket, ``POST`` a request."""

    def __init__(self, frames: Callable[[], ServerFrameProtocol], http: web.Server) -> None:
        self._frames = frames
        self._http = http

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        transport = self._transport
        if data.startswith(b"P"):
            http = self._http()
            transport.set_protocol(http)
            http.connection_made(transport)
            http.data_received(data)
            return
        frames = self._frames()
        transport.set_protocol(frames)
        frames.connection_made(transport)
        while data:
            room = frames.get_buffer(len(data))
            size = min(len(room), len(data))
            room[:size] = data[:size]
            frames.buffer_updated(size)
            data = data[size:]


@final
class _Operation(msgspec.Struct):
    """Progress of one subscriber: ``at`` counts the events behind it, ``prev`` is the last one sent."""

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
