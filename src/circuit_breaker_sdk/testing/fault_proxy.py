"""A TCP proxy that does to a connection what networks do: cut, stall, delay, throttle, split, refuse."""

from __future__ import annotations

import asyncio
import contextlib
import enum
import re
import socket
import struct
from types import TracebackType
from typing import Self, final

from circuit_breaker_sdk.errors import UsageError

__all__ = ["Direction", "FaultProxy"]

_READ_BYTES = 64 * 1024
# Close with a reset, and leave nothing behind: on, after 0 seconds.
_UPGRADE = re.compile(rb"^upgrade:\s*websocket", re.IGNORECASE | re.MULTILINE)
_EVENT_STREAM = re.compile(
    rb"^(PUT |accept:\s*text/event-stream|x-graphql-event-stream-token:)", re.IGNORECASE | re.MULTILINE
)
_FORBIDDEN = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
_RESET = struct.pack("ii", 1, 0)


class Direction(enum.Enum):
    """Which way bytes travel."""

    TO_SERVER = "to server"
    TO_CLIENT = "to client"


@final
class FaultProxy:
    """Stand between a client and a server, faithful until told otherwise.

    It listens on a free port of the loopback interface. What is set holds for all connections, open ones and
    those to come, and can be changed at any time; what is said of bytes is said of what has not been passed
    on yet. A stalled direction is not read once its buffer of 128 KiB is full, so that the sender meets a
    full buffer in the end, as it does when a peer has vanished. Nothing is lost when the stall is over.

    :ivar refuses: new connections are reset at once. Open ones are left alone.
    :ivar refuses_upgrades: a new connection whose first request asks for a WebSocket is answered 403, as
        middleboxes do; plain HTTP passes. Open ones are left alone.
    :ivar refuses_event_streams: likewise one that asks for server-sent events.
    :ivar delay_seconds: each piece that is read waits so long before it is passed on. 0 by default.
    :ivar bytes_per_second: at most so much is passed on, in each direction of each connection; ``None``, the
        default, is no limit.
    :ivar piece_bytes: pieces are passed on that are no longer than this, each on its own; ``None``, the
        default, passes on what was read.
    :ivar connections_made: how many have been accepted and joined to the server so far.

    Example::

        async with FaultProxy("127.0.0.1", server_port) as proxy:
            client = Client(f"ws://127.0.0.1:{proxy.port}/graphql")
            updates = await client.subscriptions.resource_updates().subscribe()
            proxy.cut(after_bytes=100, direction=Direction.TO_CLIENT)  # in the middle of a frame
    """

    def __init__(self, host: str, port: int) -> None:
        """Name the server; ``async with`` or :meth:`start` begins to listen."""
        self.refuses: bool = False
        self.refuses_upgrades: bool = False
        self.refuses_event_streams: bool = False
        self.delay_seconds: float = 0.0
        self.bytes_per_second: float | None = None
        self.piece_bytes: int | None = None
        self.connections_made: int = 0
        self._target = (host, port)
        self._open = {direction: asyncio.Event() for direction in Direction}
        for event in self._open.values():
            event.set()
        self._links: set[_Link] = set()
        self._joining: set[asyncio.Task[None]] = set()
        self._listener: asyncio.Server | None = None

    @property
    def port(self) -> int:
        """The port that it listens on.

        :raises UsageError: it has not been started, or is closed.
        """
        if self._listener is None:
            raise UsageError("the proxy is not listening: start it, or use it as `async with`")
        port: int = self._listener.sockets[0].getsockname()[1]
        return port

    @property
    def connections(self) -> int:
        """The number of open connections."""
        return len(self._links)

    async def start(self) -> None:
        """Begin to listen; once more does nothing."""
        if self._listener is None:
            self._listener = await asyncio.start_server(self._accept, "127.0.0.1", 0)

    async def aclose(self) -> None:
        """Cut what is open and stop listening. Safe to call twice."""
        listener, self._listener = self._listener, None
        if listener is not None:
            listener.close()
        self.cut()
        tasks = [*self._joining, *(task for link in self._links for task in link.tasks)]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

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

    def cut(self, *, after_bytes: int | None = None, direction: Direction = Direction.TO_CLIENT) -> int:
        """Reset every open connection on both sides; return how many.

        :param after_bytes: ``None`` cuts now, and what was read but not passed on is lost. A number cuts each
            of them when exactly so many more bytes have been passed on in the direction: in the middle of a
            frame, if it says so.
        :raises UsageError: the number is negative.
        """
        if after_bytes is not None and after_bytes < 0:
            raise UsageError(f"after_bytes is {after_bytes}; it must not be negative")
        links = tuple(self._links)
        for link in links:
            if after_bytes:
                link.left[direction] = after_bytes
            else:
                link.cut()
        return len(links)

    def stall(self, *directions: Direction) -> None:
        """Pass on nothing in these directions, or in both if none is named, until :meth:`flow`.

        One of the two alone makes a half-open connection: neither side is told.
        """
        for direction in directions or Direction:
            self._open[direction].clear()

    def flow(self, *directions: Direction) -> None:
        """End the stall of these directions, or of both if none is named."""
        for direction in directions or Direction:
            self._open[direction].set()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is None or self._listener is None:
            _reset(writer)
            return
        self._joining.add(task)
        try:
            await self._join(reader, writer)
        except asyncio.CancelledError:
            pass  # by `aclose`, the only one who knows this task
        finally:
            self._joining.discard(task)

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.refuses:
            _reset(writer)
            return
        try:
            server_reader, server_writer = await asyncio.open_connection(*self._target)
        except BaseException as error:
            _reset(writer)  # as if the server itself had refused
            if isinstance(error, OSError):
                return
            raise
        first = await _head(reader) if self.refuses_upgrades or self.refuses_event_streams else b""
        if self._is_refused(first):
            server_writer.close()
            writer.write(_FORBIDDEN)
            writer.close()
            return
        server_writer.write(first)
        link = _Link(writer, server_writer)
        self._links.add(link)
        self.connections_made += 1
        try:
            async with asyncio.TaskGroup() as group:
                for way in (
                    (Direction.TO_SERVER, reader, server_writer),
                    (Direction.TO_CLIENT, server_reader, writer),
                ):
                    link.tasks.append(group.create_task(self._pass_on(link, *way)))
        finally:
            self._links.discard(link)
            link.close()

    def _is_refused(self, head: bytes) -> bool:
        return (self.refuses_upgrades and _UPGRADE.search(head) is not None) or (
            self.refuses_event_streams and _EVENT_STREAM.search(head) is not None
        )

    async def _pass_on(
        self, link: _Link, direction: Direction, source: asyncio.StreamReader, sink: asyncio.StreamWriter
    ) -> None:
        try:
            while True:
                await self._open[direction].wait()
                data = await source.read(_READ_BYTES)
                if self.delay_seconds:
                    await asyncio.sleep(self.delay_seconds)
                if not data:
                    await self._open[direction].wait()
                    sink.write_eof()
                    return
                while data:
                    data = await self._pass_on_piece(link, direction, data, sink)
        except (OSError, _Cut):
            link.cut()

    async def _pass_on_piece(
        self, link: _Link, direction: Direction, data: bytes, sink: asyncio.StreamWriter
    ) -> bytes:
        """Pass on the first of the data; return the rest."""
        await self._open[direction].wait()  # a stall holds back what was read before it, too
        size = len(data) if self.piece_bytes is None else min(len(data), self.piece_bytes)
        rate = self.bytes_per_second
        if rate is not None:
            size = min(size, max(1, int(rate / 20)))
        left = link.left.get(direction)
        if left is not None:
            size = min(size, left)
        if sink.is_closing():
            # Cut from the other side, in a turn between: uvloop refuses to write then.
            raise ConnectionResetError
        sink.write(data[:size])
        await sink.drain()
        if left is not None:
            link.left[direction] = left - size
            if left == size:
                raise _Cut
        if rate is not None:
            await asyncio.sleep(size / rate)
        elif size < len(data):
            await asyncio.sleep(0)  # a piece of its own
        return data[size:]


async def _head(reader: asyncio.StreamReader) -> bytes:
    """Read the head of a request; what came, if it is none."""
    try:
        return await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError as error:
        return error.partial
    except (asyncio.LimitOverrunError, OSError):
        return b""


class _Cut(Exception):
    """As many bytes were passed on as were to be."""


@final
class _Link:
    """One connection of a client, joined to one to the server.

    :ivar left: bytes to pass on in a direction until the cut.
    """

    def __init__(self, client: asyncio.StreamWriter, server: asyncio.StreamWriter) -> None:
        self.left: dict[Direction, int] = {}
        self.tasks: list[asyncio.Task[None]] = []
        self._writers = (client, server)

    def close(self) -> None:
        for writer in self._writers:
            writer.close()

    def cut(self) -> None:
        for writer in self._writers:
            _reset(writer)
        for task in self.tasks:
            task.cancel()


def _reset(writer: asyncio.StreamWriter) -> None:
    plug: socket.socket | None = writer.get_extra_info("socket")
    if plug is not None:
        # Closed already: uvloop has no descriptor for it then, which is a ValueError.
        with contextlib.suppress(OSError, ValueError):
            plug.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    writer.transport.abort()
