"""A GraphQL server of a few lines on a raw peer, and a route that remembers what it is told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import NamedTuple, final

import msgspec

from circuit_breaker_sdk.config import MessageLimits, Timeouts
from circuit_breaker_sdk.connections import Connection, ConnectionSettings, Credentials
from circuit_breaker_sdk.connections.opening import open_connection
from circuit_breaker_sdk.errors import GraphQLError, TransportError
from circuit_breaker_sdk.protocol.messages import Subscribe
from tests.transports.peers import CLOSE, PATIENCE_SECONDS, TEXT, Peer, serve

Script = Callable[[Peer], Awaitable[None]]


async def read_message(peer: Peer) -> dict[str, object]:
    frame = await peer.read_frame()
    assert frame.opcode == TEXT, frame
    return msgspec.json.decode(frame.payload, type=dict[str, object])


def send_message(peer: Peer, **message: object) -> None:
    peer.send_frame(TEXT, msgspec.json.encode(message))


def send_next(peer: Peer, id_: str, value: object) -> None:
    send_message(peer, id=id_, type="next", payload={"data": {"tick": value}})


class Opening(NamedTuple):
    """What a client showed while it opened a connection."""

    head: str
    init: dict[str, object]


async def acknowledge(peer: Peer, payload: dict[str, object] | None = None) -> Opening:
    """Answer the upgrade and ``connection_init``."""
    head = await peer.accept()
    init = await read_message(peer)
    send_message(peer, type="connection_ack", **({} if payload is None else {"payload": payload}))
    return Opening(head, init)


async def stay(peer: Peer) -> None:
    """Read until the client closes, and answer its close; a connection that just ends is an end too."""
    with suppress(asyncio.IncompleteReadError, ConnectionError):
        while (received := await peer.read_frame()).opcode != CLOSE:
            pass
        peer.send_frame(CLOSE, received.payload)


async def acknowledge_and_stay(peer: Peer) -> None:
    await acknowledge(peer)
    await stay(peer)


def settings(
    port: int,
    *,
    path: str = "/graphql",
    credentials: Credentials | None = None,
    timeouts: Timeouts | None = None,
) -> ConnectionSettings:
    return ConnectionSettings(
        url=f"ws://127.0.0.1:{port}{path}",
        credentials=credentials or Credentials(),
        limits=MessageLimits(),
        timeouts=timeouts or Timeouts(),
    )


@final
class Losses:
    """Keeps which connections were reported as lost, and why."""

    def __init__(self) -> None:
        self.errors: list[TransportError] = []
        self._first: asyncio.Future[TransportError] = asyncio.get_running_loop().create_future()

    def __call__(self, connection: Connection, error: TransportError) -> None:
        self.errors.append(error)
        if not self._first.done():
            self._first.set_result(error)

    async def first(self) -> TransportError:
        return await asyncio.wait_for(asyncio.shield(self._first), PATIENCE_SECONDS)


@asynccontextmanager
async def opened(
    script: Script, *, losses: Losses | None = None, credentials: Credentials | None = None
) -> AsyncIterator[Connection]:
    """Yield a connection to a server that runs ``script``."""
    async with serve(script) as port:
        connection = await open_connection(settings(port, credentials=credentials), losses or Losses())
        try:
            yield connection
        finally:
            await connection.aclose()


def subscribe(id_: str) -> Subscribe:
    return Subscribe(id=id_, query="subscription { tick }")


@final
class RecordingRoute:
    """Keeps its calls as ``(method, argument)``; their number can be waited for."""

    decode_next = None

    def __init__(self) -> None:
        self.calls: list[tuple[str, object]] = []
        self._changed = asyncio.Event()

    def _note(self, call: str, argument: object) -> None:
        self.calls.append((call, argument))
        self._changed.set()

    def deliver(self, payload: bytes) -> bool:
        try:
            self._note("deliver", msgspec.json.decode(payload))
        except msgspec.DecodeError:
            return False
        return True

    def receive_run(self, run: Sequence[object], messages: Sequence[bytes], around: int) -> int:
        raise AssertionError("nothing is decoded for it")

    def receive_mixed(
        self,
        run: Sequence[object],
        messages: Sequence[bytes],
        around: int,
        route_of: Callable[[str], object],
    ) -> int:
        raise AssertionError("nothing is decoded for it")

    def deliver_checked(self, payload: bytes) -> None:
        self._note("deliver_checked", msgspec.json.decode(payload))

    def positioned(self, cursor: str) -> None:
        self._note("positioned", cursor)

    def accepted(self) -> None:
        self._note("accepted", None)

    def promised(self, cursor: str) -> None:
        self._note("promised", cursor)

    def resumes_after(self, cursor: str) -> None:
        self._note("resumes_after", cursor)

    def failed(self, errors: tuple[GraphQLError, ...]) -> None:
        self._note("failed", tuple(error.message for error in errors))

    def completed(self) -> None:
        self._note("completed", None)

    def connection_lost(self, error: TransportError) -> None:
        self._note("connection_lost", error)

    async def until(self, count: int) -> None:
        """Wait for that many calls."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while len(self.calls) < count:
                self._changed.clear()
                await self._changed.wait()
