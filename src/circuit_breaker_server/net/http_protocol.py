"""Extend uvicorn's HTTP protocol with timeouts for requests and limits for connections.

uvicorn waits for ever for a request that has begun, and for the first one of a connection. Here a head and a
body have a deadline each, whatever trickles in meanwhile. Between two requests it is uvicorn's
``timeout_keep_alive`` that counts, and once the connection is a WebSocket it is the session.

uvicorn also stores whatever its parser reports: here each part of a request has a bound in bytes, trailers
are dropped, and requests that a client sends ahead wait as bytes.
"""

from __future__ import annotations

import asyncio
import enum
from functools import partial
from http import HTTPStatus
from typing import Any, Final, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from circuit_breaker_server.admission.connection_limits import Peers
from circuit_breaker_server.admission.draining import Draining
from circuit_breaker_server.admission.hosts import Hosts
from circuit_breaker_server.bounded_log import BoundedLogger
from circuit_breaker_server.endpoints.event_stream.streamed_answer import HAND_OVER
from circuit_breaker_server.instruments import Instruments
from circuit_breaker_server.net.connection_door import Upgraded, connection_door
from circuit_breaker_server.net.hand_over import ConnectionHandOver, GivenAway
from circuit_breaker_server.net.joined_writes import JoinedWrites
from circuit_breaker_server.net.lingering_close import LingeringClose, SlowlyClosed
from circuit_breaker_server.net.refusal_answer import refusal_bytes
from circuit_breaker_server.net.request_head import head_refusal
from circuit_breaker_server.net.request_limits import (
    PIECE_BYTES,
    RequestLimits,
    RequestMeter,
    RequestTooLarge,
)
from circuit_breaker_server.refusals import reason_of_status
from circuit_breaker_server.scheduling import Gate

__all__ = ["guarded_protocol"]

_AHEAD_BYTES: Final = 512 * 1024
"""The most bytes kept unparsed of a client that pipelines; twice what the event loop reads at once."""

_UPGRADE_BYTES: Final = 16 * 1024
"""The longest head of an upgrade request that picows accepts; it closes above this without an answer."""

logger = BoundedLogger("http", lines_per_second=1_000)


class _Stage(enum.Enum):
    """The part of a request that the server awaits from the peer."""

    HEAD = enum.auto()
    BODY = enum.auto()
    NOTHING = enum.auto()


def guarded_protocol(
    peers: Peers,
    *,
    head_seconds: float,
    body_seconds: float,
    limits: RequestLimits | None = None,
    hosts: Hosts | None = None,
    draining: Draining | None = None,
    instruments: Instruments | None = None,
) -> type[asyncio.Protocol]:
    """Return the class for uvicorn's ``http=``.

    :param peers: counts the connections of all.
    :param head_seconds: from the beginning of a connection or a request to the end of its headers.
    :param body_seconds: from there to the end of its body.
    :param limits: how big a request may be; ``None`` for the defaults.
    :param hosts: the names that a request may be for; ``None`` for any.
    :param draining: while it is on, a connection that is new may ask for the health of the server only.

    :param instruments: counts what is refused.

    Example::

        uvicorn.Config(app, http=guarded_protocol(peers, head_seconds=10, body_seconds=30))
    """
    seconds = {_Stage.HEAD: head_seconds, _Stage.BODY: body_seconds}
    bounds = limits or RequestLimits()
    drain = draining or Draining()
    counts = instruments or Instruments()
    # An upgrade takes a third of a millisecond, and after a restart hundreds of clients ask for one at once.
    gate = Gate()
    # One for all connections: each keeps what it is given as long as it lives.
    leave = peers.leave

    class GuardedProtocol(HttpToolsProtocol):
        _stage = _Stage.HEAD
        _armed = _Stage.NOTHING
        _deadline: asyncio.TimerHandle | None = None
        _is_counted = True
        _is_upgraded = False
        _has_received = False
        _entering: asyncio.Task[None] | None = None
        _refusal: tuple[int, str] | None = None
        _is_foreign = False
        _closing: LingeringClose | None = None
        _host = ""

        def __init__(self, *arguments: Any, **named: Any) -> None:
            super().__init__(*arguments, **named)
            self._meter = RequestMeter(bounds)
            self._ahead = bytearray()

        def enter(self, transport: asyncio.Transport, host: str) -> None:
            """Take over a connection that is counted."""
            self._host = host
            self._is_late = drain.is_on
            transport.set_protocol(self)
            self.connection_made(transport)
            self._watch()

        def connection_lost(self, exc: Exception | None) -> None:
            self._disarm()
            if self._entering is not None:
                self._entering.cancel()
            if self._closing is not None:
                self._closing.ended()
            self._leave()
            super().connection_lost(exc)

        def data_received(self, data: bytes) -> None:
            if self._closing is not None:
                self._closing.received()
                return
            if self._is_closing() or self._is_foreign:
                return
            is_first = not self._has_received
            self._has_received = True
            if is_first and not gate.enter_now():
                self._hold(data)
                self._entering = self.loop.create_task(self._enter_later())
            elif self.pipeline or self._entering is not None:
                self._hold(data)
            else:
                self._take(data)

        async def _enter_later(self) -> None:
            """Wait for a turn of the event loop that has time for another new connection, and go on."""
            await gate.enter(self._host)
            self._entering = None
            if not self._is_closing():
                self.flow.resume_reading()
                ahead, self._ahead = self._ahead, bytearray()
                try:
                    self._take(ahead)
                except Exception:
                    self.transport.abort()  # as asyncio does where receiving fails
                    raise

        def _take(self, data: bytes | bytearray) -> None:
            """Give the parser bytes, a piece at a time, and keep what is ahead of too many answers."""
            for start in range(0, len(data), PIECE_BYTES):
                if self.pipeline:
                    self._hold(data[start:])
                    break
                piece = bytes(data[start : start + PIECE_BYTES])
                super().data_received(piece)
                if self._is_upgraded or self._is_closing():
                    self._disarm()
                    return
                if self._is_foreign:
                    break
                try:
                    self._meter.fed(len(piece))
                except RequestTooLarge as error:
                    self._end(error.status, str(error))
                    return
            cycle = self._cycle()
            if (
                self._stage is _Stage.NOTHING
                and cycle is not None
                and cycle.response_complete
                and self.timeout_keep_alive_task is None
            ):
                # Line ends before a request, which uvicorn waits behind without a limit.
                self._stage = _Stage.HEAD
            self._watch()

        def _hold(self, data: bytes | bytearray) -> None:
            """Keep bytes for later: a request in the queue takes a hundred times what it has in bytes."""
            self._ahead += data
            if len(self._ahead) > _AHEAD_BYTES:
                self._disarm()
                self.transport.abort()
            else:
                self.flow.pause_reading()

        def on_response_complete(self) -> None:
            if self._closing is not None:
                self.server_state.total_requests += 1
                return
            super().on_response_complete()
            if self.pipeline:
                self.flow.pause_reading()  # uvicorn reads on after the first answer
            elif self._ahead and not self._is_closing():
                ahead, self._ahead = self._ahead, bytearray()
                self._take(ahead)

        def _unsupported_upgrade_warning(self) -> None:
            # What follows is of a protocol that is not spoken here: it is answered, and read no more.
            self._is_foreign = True
            cycle = self._cycle()
            if cycle is not None:
                cycle.keep_alive = False

        def handle_websocket_upgrade(self) -> None:
            lines = sum(len(name) + len(value) + 4 for name, value in self.headers)
            if lines + len(self.url) + len("GET  HTTP/1.1\r\n\r\n") > _UPGRADE_BYTES:
                status = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
                self._end(status, f"the head of an upgrade may have {_UPGRADE_BYTES} bytes at most")
                return
            self._is_upgraded = True
            self._disarm()
            super().handle_websocket_upgrade()
            if self._is_counted:
                # The socket takes over the count, and nothing else of this: it may live for days.
                self._is_counted = False
                cast(Upgraded, self.transport.get_protocol()).when_lost(leave, self._host)

        def on_message_begin(self) -> None:
            self._stage = _Stage.HEAD
            self._meter.begin()
            super().on_message_begin()

        def on_url(self, url: bytes) -> None:
            try:
                self._meter.target(self.parser.get_method(), url)
            except RequestTooLarge as error:
                self._remember(error)
                raise
            super().on_url(url)

        def on_header(self, name: bytes, value: bytes) -> None:
            try:
                self._meter.header(name, value)
            except RequestTooLarge as error:
                self._remember(error)
                raise
            if self._stage is _Stage.HEAD:  # a trailer is never a header
                super().on_header(name, value)

        def on_headers_complete(self) -> None:
            self._meter.head_complete()
            refusal = head_refusal(
                self.parser.get_http_version(),
                self.headers,
                is_upgrade=self.parser.should_upgrade(),
                hosts=hosts,
                url=self.url,
                is_late=self._is_late,
            )
            self._refusal = refusal or self._refusal
            if self._refusal is not None:
                raise ValueError(self._refusal[1])  # the parser stops, and it is answered and closed
            self._stage = _Stage.BODY
            super().on_headers_complete()
            cycle = self._cycle()
            if cycle is not None:
                cycle.transport = cast(asyncio.Transport, JoinedWrites(self.transport, self.loop))
                scope = cast(dict[str, object], self.scope)
                scope[HAND_OVER] = ConnectionHandOver(self, cycle)

        def give_away(self) -> GivenAway | None:
            """Let go of the connection, with its place in the counts."""
            if self._is_closing():
                return None
            self._disarm()
            self._ahead.clear()
            connections = cast(set[object], self.connections)
            connections.discard(self)
            self._is_counted = False
            return GivenAway(self.transport, connections, partial(peers.leave, self._host))

        def on_chunk_header(self) -> None:
            self._meter.chunk_begun()

        def on_body(self, body: bytes) -> None:
            stored = self._meter.body(len(body))
            if stored:
                super().on_body(body[:stored])
            if self._meter.body_is_over:
                self._end_after_answer()

        def _end_after_answer(self) -> None:
            """Let the route say that the body is too big, and read no other request behind it."""
            cycle = self._cycle()
            if self.parser.should_upgrade() or cycle is None or cycle.response_complete:
                self._refusal = (
                    HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
                    f"the body is over {bounds.body_bytes} bytes",
                )
                raise ValueError(self._refusal[1])
            cycle.keep_alive = False
            cycle.transport = cast(asyncio.Transport, SlowlyClosed(cycle.transport, self._close_slowly))

        def _remember(self, error: RequestTooLarge) -> None:
            """Remember what is refused: the parser tells only that a callback failed."""
            self._refusal = error.status, str(error)

        def send_400_response(self, msg: str) -> None:
            self._end(*(self._refusal or (HTTPStatus.BAD_REQUEST, msg)))

        def on_message_complete(self) -> None:
            self._stage = _Stage.NOTHING
            super().on_message_complete()

        def _watch(self) -> None:
            """Set the deadline of what is awaited; one that runs for the same goes on."""
            if self._stage is self._armed:
                return
            self._disarm()
            if self._stage is not _Stage.NOTHING:
                self._armed = self._stage
                self._deadline = self.loop.call_later(seconds[self._stage], self._on_deadline)

        def _disarm(self) -> None:
            self._armed = _Stage.NOTHING
            if self._deadline is not None:
                self._deadline.cancel()
                self._deadline = None

        def _on_deadline(self) -> None:
            stage = self._armed
            self._disarm()
            if self.flow.read_paused:
                self._watch()  # it is we who do not read: the requests before it are not answered yet
                return
            if not self._has_received:
                self.transport.abort()  # a browser opens connections that it may not need: nothing is refused
                logger.debug("unused", remote=self._host)
            else:
                counts.refusals.note(
                    "timeout",
                    "request",
                    remote=self._host,
                    status=int(HTTPStatus.REQUEST_TIMEOUT),
                    awaited=stage.name.lower(),
                )
                text = f"the {stage.name.lower()} was not complete in {seconds[stage]:g} s"
                self._answer(stage, HTTPStatus.REQUEST_TIMEOUT, text)

        def _end(self, status: int, text: str) -> None:
            """Answer a request that is not taken, and close."""
            counts.refusals.note(reason_of_status(status), "request", remote=self._host, status=int(status))
            self._disarm()
            self._ahead.clear()
            self._answer(self._stage, status, text)

        def _answer(self, stage: _Stage, status: int, text: str) -> None:
            """Answer and close; without an answer where it would stand in another one, or before it."""
            cycle = self._cycle()
            answering = cycle is not None and cycle.response_started and stage is _Stage.BODY
            waiting = cycle is not None and not cycle.response_complete and stage is _Stage.HEAD
            if answering or waiting:
                self.transport.abort()
            else:
                self.transport.write(refusal_bytes(status, text))
                self._close_slowly()

        def _close_slowly(self) -> None:
            """Close so that the answer is read; the route of an unfinished request learns that it is over."""
            if self._is_closing():
                return
            cycle = self._cycle()
            if cycle is not None and not cycle.response_complete:
                cycle.disconnected = True
                cycle.message_event.set()
            self._disarm()
            self._ahead.clear()
            self._closing = LingeringClose(self.transport, self.loop)

        def _is_closing(self) -> bool:
            return self._closing is not None or self.transport.is_closing()

        def _cycle(self) -> RequestResponseCycle | None:
            return self.cycle  # uvicorn says that there is always one

        def _leave(self) -> None:
            if self._is_counted:
                self._is_counted = False
                peers.leave(self._host)

    return connection_door(GuardedProtocol, peers)
