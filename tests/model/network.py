"""A network in memory: what one end writes lies in a queue until a step brings or loses it."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any, Final, cast, final

import msgspec

from circuit_breaker_sdk.protocol.messages import SUBPROTOCOL
from circuit_breaker_sdk.transports.websocket import MessageSink, WebSocket

__all__ = ["Network", "Wire"]

SERVICE_RESTART: Final = 1012
ABNORMAL: Final = 1006


class _Envelope(msgspec.Struct):
    type: str
    id: str = ""


def kind_and_id(message: bytes) -> tuple[str, str]:
    envelope = msgspec.json.decode(message, type=_Envelope)
    return envelope.type, envelope.id


def messages_in(frames: bytes) -> list[bytes]:
    """Cut unmasked text frames apart."""
    found = []
    while frames:
        assert frames[0] == 0x81
        length, at = frames[1], 2
        if length >= 126:
            at = 4 if length == 126 else 10
            length = int.from_bytes(frames[2:at], "big")
        found.append(frames[at : at + length])
        frames = frames[at + length :]
    return found


class Network:
    """Every wire there ever was.

    :ivar faults: what no end may do; a test expects none.
    """

    def __init__(self) -> None:
        self.wires: list[Wire] = []
        self.faults: list[str] = []


class _End:
    """One end's socket: the half of :class:`WebSocket` that sessions and connections use."""

    url = "/graphql"
    remote = "model"
    subprotocol = SUBPROTOCOL
    closed_by_peer = False

    def __init__(self, wire: Wire) -> None:
        self.wire = wire
        self.sink: MessageSink | None = None
        self.is_closing = False
        self.is_closed = False
        self._closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def hear(self, message: bytes) -> None:
        if self.sink is not None and not self.is_closing:
            self.sink.on_message(message)

    def lose(self, code: int = ABNORMAL) -> None:
        """Let this end know that the connection is gone."""
        if not self.is_closed:
            self.is_closing = self.is_closed = True
            self._closed.set_result(None)
            if self.sink is not None:
                self.sink.on_closed(code, "")

    def abort(self) -> None:
        self.is_closing = True
        self.wire.cut()
        asyncio.get_running_loop().call_soon(self.lose)

    async def wait_closed(self) -> None:
        await asyncio.shield(self._closed)


@final
class ClientEnd(_End):
    """The client's socket. It closes only when the test is over: anything else is a fault."""

    def __init__(self, wire: Wire) -> None:
        super().__init__(wire)
        self.is_paused = False

    def send_messages(self, messages: list[bytes]) -> None:
        if not self.is_closing and not self.wire.is_cut:
            self.wire.to_server += messages

    def close(self, code: int, reason: str = "") -> None:
        if code != 1000:
            self.wire.network.faults.append(f"the client closes with {code}: {reason}")
        self.abort()

    def pause_reading(self) -> None:
        self.is_paused = True

    def resume_reading(self) -> None:
        self.is_paused = False


@final
class ServerEnd(_End):
    """The server's socket: full with ``room`` messages under way, writable again with half of them."""

    write_buffer_bytes = 0

    def __init__(self, wire: Wire, room: int) -> None:
        super().__init__(wire)
        self.room = room
        self.is_writable = True
        # What goes before events in one turn of the loop, a live signal, may fill the socket.
        self.was_writable = True
        self.active: set[str] = set()

    def hear(self, message: bytes) -> None:
        kind, id_ = kind_and_id(message)
        if kind == "subscribe":
            self.active.add(id_)
        elif kind == "complete":
            self.active.discard(id_)
        super().hear(message)

    def write(self, frames: bytes) -> None:
        if self.is_closing:
            return
        for message in messages_in(frames):
            kind, id_ = kind_and_id(message)
            if kind == "next" and not self.was_writable:
                self.wire.network.faults.append("an event is written to a full socket")
            if kind in ("error", "complete"):
                self.active.discard(id_)
            if not self.wire.is_cut:
                self.wire.to_client.append(message)
        if self.is_writable and len(self.wire.to_client) >= self.room and self.sink is not None:
            self.is_writable = False
            asyncio.get_running_loop().call_soon(self._look_again)
            self.sink.on_writable(False)

    def _look_again(self) -> None:
        self.was_writable = self.is_writable

    def drain(self) -> None:
        """Note that the client has taken something."""
        if not self.is_writable and len(self.wire.to_client) * 2 <= self.room and not self.is_closing:
            self.is_writable = self.was_writable = True
            if self.sink is not None:
                self.sink.on_writable(True)

    def close(self, code: int, reason: str = "") -> None:
        if self.is_closing:
            return
        if code != SERVICE_RESTART:
            self.wire.network.faults.append(f"the server closes with {code}: {reason}")
        self.is_closing = True
        self.wire.to_client.append(code)
        asyncio.get_running_loop().call_soon(self.lose, code)


@final
class Wire:
    """One connection's two queues and two ends. A number in the client's queue is a close frame."""

    def __init__(self, network: Network, *, room: int) -> None:
        self.network = network
        self.to_server: deque[bytes] = deque()
        self.to_client: deque[bytes | int] = deque()
        self.is_cut = False
        self.client = ClientEnd(self)
        self.server = ServerEnd(self, room)
        network.wires.append(self)

    @property
    def is_quiet(self) -> bool:
        """Nothing is under way."""
        return not self.to_client and not self.to_server

    @property
    def client_socket(self) -> WebSocket:
        return cast("Any", self.client)  # type: ignore[no-any-return]  # stands in for it

    @property
    def server_socket(self) -> WebSocket:
        return cast("Any", self.server)  # type: ignore[no-any-return]  # as above

    def cut(self) -> None:
        """Lose what is under way; neither end knows yet."""
        self.is_cut = True
        self.to_server.clear()
        self.to_client.clear()

    def bring_to_server(self, count: int) -> None:
        while count and self.to_server:
            self.server.hear(self.to_server.popleft())
            count -= 1

    def bring_to_client(self, count: int) -> None:
        while count and self.to_client and not self.client.is_paused:
            message = self.to_client.popleft()
            if isinstance(message, int):
                self.client.lose(message)
            else:
                self.client.hear(message)
            self.server.drain()
            count -= 1

    def tell_ends(self, *, client: bool, server: bool) -> None:
        """Let ends know of a connection that is gone."""
        if client and (self.is_cut or self.server.is_closed):
            self.to_client.clear()
            self.client.lose()
        if server and (self.is_cut or self.client.is_closed):
            self.server.lose()
