"""Hand a connection over from uvicorn, behind the head of an answer, to what writes the rest of it."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Callable
from typing import NamedTuple, Protocol, cast, final

from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from circuit_breaker_server.endpoints.event_stream.streamed_answer import AnswerSink, StreamedAnswer
from circuit_breaker_server.net.joined_writes import JoinedWrites

__all__ = ["ConnectionHandOver", "GivenAway"]


class GivenAway(NamedTuple):
    """A connection that its protocol has let go of."""

    transport: asyncio.Transport
    connections: set[object]
    leave: Callable[[], None]


class _Giving(Protocol):
    """The interface of a protocol that lets go of its connection."""

    def give_away(self) -> GivenAway | None:
        """Let go; ``None``: it is closing."""
        ...


@final
class ConnectionHandOver:
    """Hands over the connection of one request.

    Example::

        scope[HAND_OVER] = ConnectionHandOver(protocol, cycle)
    """

    __slots__ = ("_cycle", "_is_chunked", "_protocol")

    def __init__(self, protocol: _Giving, cycle: RequestResponseCycle) -> None:
        self._protocol = protocol
        self._cycle = weakref.ref(cycle)  # it holds the scope, which holds this
        self._is_chunked = True

    def without_chunks(self) -> None:
        """Write the body as it is, ended by the end of the connection: HTTP/1.0 knows no chunks."""
        cycle = self._cycle()
        if cycle is not None:
            cycle.chunked_encoding = self._is_chunked = False

    def __call__(self, sink: AnswerSink) -> StreamedAnswer | None:
        """Give the connection to an answer whose head is sent; ``None``: its peer has left."""
        cycle = self._cycle()
        given = None if cycle is None or cycle.disconnected else self._protocol.give_away()
        if cycle is None or given is None:
            return None
        # Writes the head, if it is held back.
        cast(JoinedWrites, cycle.transport).flush()
        cycle.disconnected = True  # uvicorn forgets it
        answer = StreamedAnswer(
            given.transport,
            sink,
            connections=given.connections,
            leave=given.leave,
            is_chunked=self._is_chunked,
        )
        given.transport.set_protocol(answer)
        given.transport.resume_reading()  # else the peer's leaving goes unnoticed
        return answer
