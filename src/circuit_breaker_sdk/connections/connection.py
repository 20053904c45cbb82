"""One connection: a WebSocket, its protocol state and the operations on it, from upgrade to close."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, final

from circuit_breaker_sdk.config import MessageBatching
from circuit_breaker_sdk.connections.connection_error_mapping import (
    REFUSES_AN_OPERATION,
    broken_error,
    close_error,
)
from circuit_breaker_sdk.connections.event_runs import EventRuns
from circuit_breaker_sdk.connections.guarded_calls import do_for_each
from circuit_breaker_sdk.connections.interfaces import Route
from circuit_breaker_sdk.connections.redaction import NOTHING_TO_REDACT, Redaction
from circuit_breaker_sdk.connections.write_batching import WriteBatch
from circuit_breaker_sdk.errors import ConnectionFailed, GraphQLError, OperationTimeoutError, TransportError
from circuit_breaker_sdk.observability import log
from circuit_breaker_sdk.protocol.close_codes import CloseCode
from circuit_breaker_sdk.protocol.legacy_ws import client_protocol
from circuit_breaker_sdk.protocol.messages import (
    MAX_CURSOR_CHARACTERS,
    Complete,
    Error,
    Next,
    Ping,
    Pong,
    Subscribe,
)
from circuit_breaker_sdk.protocol.next_prefix import PrefixRoutes
from circuit_breaker_sdk.protocol.positions import Positions
from circuit_breaker_sdk.protocol.resume import (
    acknowledged_epoch,
    answer_behind,
    live_signal,
    naming_positions,
    question_behind,
    tells_behind,
)
from circuit_breaker_sdk.protocol.transport_ws import ClientProtocol, ClientState
from circuit_breaker_sdk.transports.heartbeat import KeepAliveWatch, Pulse
from circuit_breaker_sdk.urls import redacted

if TYPE_CHECKING:
    from circuit_breaker_sdk.transports.websocket import WebSocket

__all__ = ["Connection"]

_CLOSING_BRACE = ord("}")


@final
class Connection:
    """One socket's life: opened once, never reopened.

    Messages go from the read callback straight to the :class:`Route` of their operation; what the prefix
    routes do not know, or what does not decode there, goes through the full codec and the protocol state.
    """

    __slots__ = (
        "__weakref__",
        "_acknowledged",
        "_closed_by_us",
        "_failure",
        "_holding",
        "_on_behind",
        "_on_closed",
        "_positions",
        "_protocol",
        "_pulse",
        "_redaction",
        "_routes",
        "_runs",
        "_socket",
        "_url",
        "_writes",
        "refusal",
        "resume_epoch",
        "tells_behind",
        "was_silent",
    )

    def __init__(
        self,
        url: str,
        on_closed: Callable[[Connection, TransportError], None],
        batching: MessageBatching | None = None,
        redaction: Redaction = NOTHING_TO_REDACT,
        positions: Positions | None = None,
    ) -> None:
        """Prepare; ``opening.open_connection`` is the way in."""
        self._positions = positions or Positions()
        self._redaction = redaction
        self._writes = WriteBatch(batching or MessageBatching())
        self._url = redacted(url)
        self._on_closed = on_closed
        self._protocol: ClientProtocol = ClientProtocol()
        self._routes: PrefixRoutes[Route] = PrefixRoutes()
        self._socket: WebSocket | None = None
        self._acknowledged: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._failure: TransportError | None = None
        self._closed_by_us = False
        self._pulse: Pulse | KeepAliveWatch | None = None
        self._holding: dict[Route, None] = {}
        self._runs = EventRuns()
        self.was_silent: bool = False
        """Whether it was given up because its peer was silent: it may be so for whoever connects again."""
        self.refusal: tuple[int, str] | None = None
        """Close code and reason, where the server closed with a code that may be about one operation."""
        self.resume_epoch: str | None = None
        """The epoch of the server's log; ``None`` where resume was not negotiated (docs/resume.md, 1)."""
        self.tells_behind: bool = False
        """Whether the server answers :meth:`ask_behind` (docs/resume.md, 12)."""
        self._on_behind: Callable[[Mapping[str, int]], None] | None = None

    async def begin(self, socket: WebSocket, init_payload: dict[str, object], *, seconds: float) -> None:
        """Initialise on a socket that was upgraded; return once the server has acknowledged.

        :raises TransportError: the server refused, closed, or did not answer within ``seconds``.
        """
        self._socket = socket
        if self._acknowledged.done():
            await self._acknowledged  # the server closed right behind its answer to the upgrade
        if self._protocol.close is None:  # else that close is flushed, and its end waited for
            self._protocol = client_protocol(self._protocol, socket.subprotocol)
            self._protocol.send_init(init_payload)
        self._flush()
        try:
            async with asyncio.timeout(seconds):
                await self._acknowledged
        except TransportError:
            raise  # some are a TimeoutError, and not that of the limit
        except TimeoutError:
            raise OperationTimeoutError(f"{self._url}: connection_ack", seconds=seconds) from None

    async def abort(self) -> None:
        """Drop the socket without a word, and wait for its end; nobody is told of it."""
        self._closed_by_us = True
        if self._socket is not None:
            self._socket.abort()
            await self._socket.wait_closed()

    def watch(self, pulse: Pulse | KeepAliveWatch) -> None:
        """Start the heartbeat; it ends with the connection."""
        self._pulse = pulse
        pulse.start()

    def ping(self) -> None:
        """Send a ping."""
        self._protocol.send_ping()
        self._flush()

    def ask_behind(self, cursors: Mapping[str, str], on_answer: Callable[[Mapping[str, int]], None]) -> None:
        """Ask how many records of the server's log subscriptions are behind; one question at a time.

        Nothing happens while another one is not answered, nor at a server that does not tell it.

        :param cursors: the cursor of each by operation id; it may be of one that is stopped.
        :param on_answer: called with the number of records by operation id.
        """
        if self.tells_behind and self._on_behind is None and self.is_usable:
            self._on_behind = on_answer
            self._protocol.send_ping(question_behind(cursors))
            self._flush_soon()

    @property
    def resume_negotiated(self) -> bool:
        """Whether the server gives cursors and live signals."""
        return self.resume_epoch is not None

    @property
    def url(self) -> str:
        """The URL of the connection, without credentials."""
        return self._url

    @property
    def round_trip_seconds(self) -> float | None:
        """From the latest ping to its pong; ``None`` where none was answered yet."""
        return None if self._pulse is None else self._pulse.round_trip_seconds

    @property
    def received_at(self) -> float | None:
        """When it brought something last, by the clock of ``time.perf_counter``; ``None``: it is not open."""
        return None if self._socket is None else self._socket.received_at

    @property
    def unanswered_seconds(self) -> float:
        """For how long the latest ping has been waiting for its pong; 0 where none is waited for."""
        return 0.0 if self._pulse is None else self._pulse.unanswered_seconds

    @property
    def write_delay_seconds(self) -> float:
        """Seconds that a message may wait for others before it is written; 0: the end of the turn."""
        return self._writes.delay_seconds

    @property
    def is_usable(self) -> bool:
        """Whether operations can be started: acknowledged, and not closing from either side."""
        socket = self._socket
        return self._protocol.state is ClientState.READY and socket is not None and not socket.is_closing

    def subscribe(self, message: Subscribe, route: Route) -> None:
        """Start an operation. Its route is registered before the message is written, so no event is missed.

        :raises ConnectionFailed: the connection is closing or closed.
        """
        if not self.is_usable:
            raise self._failure or ConnectionFailed("the connection is closed", url=self._url)
        self._routes.add(message.id, route)
        if self._positions.named and self.resume_negotiated:
            message = naming_positions(message, self._positions.named)
        try:
            self._protocol.send_subscribe(message)
        except BaseException:
            self._routes.remove(message.id, route)
            raise
        self._flush_soon()

    def complete(self, id: str, route: Route) -> None:  # noqa: A002 (the protocol's own word)
        """End an operation from our side; nothing happens if it is over already."""
        if self._routes.remove(id, route) and self.is_usable:
            self._protocol.send_complete(id)
            self._flush_soon()

    def redacted(self, errors: tuple[GraphQLError, ...]) -> tuple[GraphQLError, ...]:
        """Return a server's errors without what this client keeps secret."""
        return self._redaction.errors(errors)

    def hold(self, route: Route) -> None:
        """Read nothing more for now, for the sake of this route; until :meth:`release`."""
        if not self._holding and self._socket is not None:
            self._socket.pause_reading()
            if self._pulse is not None:
                # No pong can be read: its absence would say nothing.
                self._pulse.stop()
        self._holding[route] = None

    def release(self, route: Route) -> None:
        """Read on, as far as this route is concerned; nothing happens if it holds nothing."""
        if route in self._holding:
            del self._holding[route]
            if not self._holding and self._socket is not None:
                self._socket.resume_reading()
                if self._pulse is not None:
                    self._pulse.start()

    def let_consumers_run(self) -> None:
        """Read nothing more in this turn of the event loop: tasks that wait for events go first."""
        if self._socket is not None:
            self._socket.rest_reading()

    def drop(self, error: TransportError) -> None:
        """Give the connection up as lost, as its peer is silent; it may hear nothing of it."""
        self.was_silent = True
        if self._socket is not None and self.is_usable:
            self._failure = error
            self._socket.abort()

    async def aclose(self) -> None:
        """Close with 1000, wait ``close_seconds`` at most for its end; cancelling drops it. Idempotent."""
        self._closed_by_us = True
        socket = self._socket
        if socket is None:
            return
        self._flush()
        if self._holding:
            socket.resume_reading()  # the answer to our close is to be read
        socket.close(CloseCode.NORMAL)
        try:
            await socket.wait_closed()
        except asyncio.CancelledError:
            socket.abort()
            raise

    def on_message(self, data: bytes) -> None:
        """Hand one message to its route: the hot path."""
        routes = self._routes
        length = routes.prefix_length
        route = routes.by_prefix.get(data[:length])
        if route is None or data[-1] != _CLOSING_BRACE or not route.deliver(data[length:-1]):
            self._receive(data)

    def on_messages(self, messages: list[bytes]) -> None:
        """Hand on what one read has brought: the hot path where much comes."""
        taken = self._runs.receive(messages, self._routes)
        socket = self._socket
        for data in messages[taken:]:
            if socket is not None and socket.is_closing:
                return  # what comes behind a close frame of ours is not looked at
            self.on_message(data)

    def on_closed(self, code: int, reason: str) -> None:
        """Tell every route, and the owner, that the connection is gone."""
        self._protocol.receive_closed()
        self._holding.clear()
        if self._pulse is not None:
            self._pulse.stop()
        self._writes.cancel()
        reason = self._redaction.text(reason)
        error = self._failure or close_error(self._url, code, reason)
        log(logging.DEBUG, "connection closed", url=self._url, close_code=code, reason=reason or None)
        if not self._acknowledged.done():
            self._acknowledged.set_exception(error)
            # Read here once: `open` may have been cancelled and would never do so.
            self._acknowledged.exception()
            return
        socket = self._socket
        if code in REFUSES_AN_OPERATION and socket is not None and socket.closed_by_peer:
            self.refusal = (code, reason)
        self._failure = error
        routes, self._routes = self._routes, PrefixRoutes()
        do_for_each(routes.routes(), lambda route: route.connection_lost(error), "losing the connection")
        if not self._closed_by_us:
            self._on_closed(self, error)

    def on_writable(self, writable: bool) -> None:
        """Answer pings only while the server reads: all else that a client writes, it bounds itself."""
        self._protocol.answers_pings = writable
        log(logging.DEBUG, "connection writable" if writable else "connection not writable", url=self._url)

    def _receive(self, data: bytes) -> None:
        protocol = self._protocol
        protocol.receive_message(data)
        for event in protocol.events_received():
            if isinstance(event, Next):
                route = self._routes.get(event.id)
                if route is not None:
                    self._routes.learn(data, event)
                    route.deliver_checked(event.payload)
            elif isinstance(event, Error | Complete):
                self._end(event)
            elif isinstance(event, Ping):
                self._position(event.payload)
            elif isinstance(event, Pong):
                if self._pulse is not None:
                    self._pulse.pong()
            else:
                self._acknowledge(event.payload)
        if protocol.close is not None:
            self._flush()
        elif protocol.messages_to_send:
            # Each live signal is a ping: the pongs to all that one read brought ride in one write too.
            self._flush_soon()

    def _end(self, event: Error | Complete) -> None:
        route = self._routes.get(event.id)
        if route is None:
            return
        self._routes.remove(event.id, route)
        if isinstance(event, Error):
            route.failed(self._redaction.errors(event.errors))
        else:
            route.completed()

    def _position(self, payload: dict[str, object] | None) -> None:
        signal = live_signal(payload) if self.resume_negotiated else None
        if signal is None:
            on_behind, told = self._on_behind, answer_behind(payload)
            if told is not None and on_behind is not None:
                self._on_behind = None
                on_behind(told)
            return
        id_, cursor = signal
        route = self._routes.get(id_)
        if route is None:
            return
        if len(cursor) > MAX_CURSOR_CHARACTERS:
            self.complete(id_, route)
            route.failed((GraphQLError(message=f"a cursor is over {MAX_CURSOR_CHARACTERS} characters"),))
        else:
            route.positioned(cursor)

    def _acknowledge(self, payload: dict[str, object] | None) -> None:
        self.resume_epoch = acknowledged_epoch(payload)
        self.tells_behind = tells_behind(payload)
        if not self._acknowledged.done():
            self._acknowledged.set_result(None)

    def _flush_soon(self) -> None:
        self._writes.flush_soon(self._protocol.messages_to_send, self._flush)

    def _flush(self) -> None:
        self._writes.cancel()
        socket = self._socket
        if socket is None:
            return  # the handshake's last turn: `open` flushes
        socket.send_messages(self._protocol.data_to_send())
        close = self._protocol.close
        if close is not None and not socket.is_closing:
            reason = self._redaction.text(close.reason)
            self._failure = broken_error(self._url, close.code, reason)
            log(logging.WARNING, "protocol error", url=self._url, close_code=close.code, reason=reason)
            socket.close(close.code, close.reason)
