"""The hand-over of an upgrade from uvicorn to picows: every HTTP parser, every event loop."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Literal, final

import pytest
import uvicorn
import uvloop
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from circuit_breaker_sdk.config import MessageLimits, Timeouts
from circuit_breaker_sdk.errors import AuthenticationFailed, HandshakeFailed
from circuit_breaker_sdk.transports.websocket import MessageSink, WebSocket, connect
from circuit_breaker_server.net.websocket_upgrade import (
    Accept,
    Refuse,
    UpgradeAnswer,
    UpgradeRequest,
    upgrade_protocol,
)
from tests.transports.peers import (
    CLOSE,
    PATIENCE_SECONDS,
    SUBPROTOCOL,
    TEXT,
    Peer,
    RecordingSink,
    raw_client,
    upgrade_request,
)

HttpParser = Literal["httptools", "h11"]
LIMITS = MessageLimits(max_message_bytes=65_536)
LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "uvloop": uvloop.new_event_loop,
    "asyncio": asyncio.new_event_loop,
}

both_parsers = pytest.mark.parametrize("parser", ["httptools", "h11"])
both_loops = pytest.mark.parametrize("loop", LOOPS)


class EchoSession:
    """Sends every message back."""

    def __init__(self, socket: WebSocket) -> None:
        self.socket = socket
        self.seen = RecordingSink()

    def on_message(self, data: bytes) -> None:
        self.seen.on_message(data)
        self.socket.send_message(data)

    def on_closed(self, code: int, reason: str) -> None:
        self.seen.on_closed(code, reason)

    def on_writable(self, writable: bool) -> None:
        self.seen.on_writable(writable)


@final
@dataclass(slots=True)
class Running:
    """A server under test, and what it has seen."""

    port: int = 0
    requests: list[UpgradeRequest] = field(default_factory=list)
    sessions: list[EchoSession] = field(default_factory=list)
    stop: Callable[[], None] = lambda: None
    stopped: asyncio.Event = field(default_factory=asyncio.Event)


@asynccontextmanager
async def run_server(
    parser: HttpParser,
    *,
    answer: Callable[[UpgradeRequest], UpgradeAnswer] | None = None,
    close_seconds: float = 5.0,
    handshake_seconds: float = 5.0,
) -> AsyncIterator[Running]:
    running = Running()

    def open_session(request: UpgradeRequest) -> UpgradeAnswer:
        running.requests.append(request)
        if answer is not None:
            return answer(request)
        if request.path != "/graphql":
            return Refuse(status=404, body="there is no WebSocket here")
        return Accept(subprotocol=SUBPROTOCOL, open_sink=open_sink)

    def open_sink(socket: WebSocket) -> MessageSink:
        session = EchoSession(socket)
        running.sessions.append(session)
        return session

    async def health(_request: Request) -> PlainTextResponse:
        return PlainTextResponse("ok")

    started = asyncio.Event()

    class Server(uvicorn.Server):
        """Tells when it listens, and leaves signals alone."""

        async def startup(self, sockets: object = None) -> None:
            await super().startup(sockets=None)
            started.set()

    server = Server(
        uvicorn.Config(
            Starlette(routes=[Route("/health", health)]),
            host="127.0.0.1",
            port=0,
            http=parser,
            ws=upgrade_protocol(
                open_session, limits=LIMITS, close_seconds=close_seconds, handshake_seconds=handshake_seconds
            ),
            lifespan="off",
            log_level="critical",
        )
    )

    def stop() -> None:
        server.should_exit = True

    async def serve() -> None:
        try:
            await server._serve()
        finally:
            started.set()
            running.stopped.set()

    task = asyncio.create_task(serve())
    try:
        await asyncio.wait_for(started.wait(), PATIENCE_SECONDS)
        running.port = server.servers[0].sockets[0].getsockname()[1]
        running.stop = stop
        yield running
    finally:
        # Not cancelled: uvicorn would leave its sockets open.
        stop()
        await task


def run_on(loop: str, test: Callable[[], Awaitable[None]]) -> None:
    """Run ``test`` on the named kind of event loop; no task may outlive it."""

    async def run() -> None:
        await test()
        for _ in range(5):
            await asyncio.sleep(0)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
        runner.run(run())


async def open_client(port: int, sink: RecordingSink, *, path: str = "/graphql", **headers: str) -> WebSocket:
    return await connect(
        f"ws://127.0.0.1:{port}{path}",
        sink,
        subprotocols=[SUBPROTOCOL],
        headers=headers,
        limits=LIMITS,
        timeouts=Timeouts(),
    )


async def finish(peer: Peer) -> None:
    peer.send_frame(CLOSE, b"\x03\xe8")
    assert (await peer.read_frame()).close_code == 1000
    assert await peer.read_to_end() == b""
    await peer.close()


# The hand-over ---------------------------------------------------------------------------------------------


@both_loops
@both_parsers
def test_an_upgraded_socket_carries_messages_of_any_size(loop: str, parser: HttpParser) -> None:
    async def test() -> None:
        async with run_server(parser) as server:
            sink = RecordingSink()
            socket = await open_client(server.port, sink)
            messages = [b"x" * size for size in (0, 1, 125, 126, 8_193, 65_535, 65_536)]
            for message in messages:
                socket.send_message(message)
            await sink.wait_until(lambda: len(sink.messages) == len(messages))
            assert sink.messages == messages
            assert socket.subprotocol == SUBPROTOCOL
            socket.close(1000, "done")
            await socket.wait_closed()
            await server.sessions[0].seen.wait_until(lambda: server.sessions[0].seen.closed)
            assert server.sessions[0].seen.closed == [(1000, "done")]

    run_on(loop, test)


@both_loops
@both_parsers
def test_http_and_websocket_share_the_port_and_even_the_connection(loop: str, parser: HttpParser) -> None:
    async def test() -> None:
        async with run_server(parser) as server:
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            peer = Peer(reader, writer, masks=True)
            for _ in range(2):
                peer.send(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
                assert "200 OK" in await peer.read_head()
                assert await peer.read(2) == b"ok"
            peer.send(upgrade_request())
            assert "101" in await peer.read_head()
            peer.send_frame(TEXT, b"hello")
            assert (await peer.read_frame()).payload == b"hello"
            await finish(peer)

    run_on(loop, test)


@both_loops
@both_parsers
@pytest.mark.parametrize("size", [3_000, 14_000])
def test_a_header_larger_than_the_read_buffer_passes(loop: str, parser: HttpParser, size: int) -> None:
    async def test() -> None:
        async with run_server(parser) as server:
            peer = await raw_client(server.port, more=f"Cookie: {'x' * size}\r\n")
            assert "101" in await peer.read_head()
            assert server.requests[0].headers["cookie"] == "x" * size
            peer.send_frame(TEXT, b"y" * 20_000)
            assert (await peer.read_frame()).payload == b"y" * 20_000
            await finish(peer)

    run_on(loop, test)


@both_loops
@both_parsers
def test_a_header_in_pieces_and_messages_right_behind_the_answer_pass(loop: str, parser: HttpParser) -> None:
    async def test() -> None:
        async with run_server(parser) as server:
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            peer = Peer(reader, writer, masks=True)
            request = upgrade_request()
            for start in range(0, len(request), 40):
                peer.send(request[start : start + 40])
                await writer.drain()
                await asyncio.sleep(0)
            assert "101" in await peer.read_head()
            for number in range(50):
                peer.send_frame(TEXT, b"%d" % number)
            for number in range(50):
                assert (await peer.read_frame()).payload == b"%d" % number
            await finish(peer)

    run_on(loop, test)


@both_parsers
async def test_a_frame_sent_before_the_answer_ends_in_no_hanging_connection(parser: HttpParser) -> None:
    # A client must wait for the answer (RFC 6455, section 4.1); the HTTP parser drops what came too early.
    async with run_server(parser) as server:
        early = Peer(*await asyncio.open_connection("127.0.0.1", server.port), masks=True)
        early.send(upgrade_request() + early.frame(TEXT, b"early"))
        assert "101" in await early.read_head()
        early.send_frame(TEXT, b"in time")
        assert (await early.read_frame()).payload == b"in time"
        await finish(early)


@both_parsers
async def test_the_session_learns_what_was_asked_for(parser: HttpParser) -> None:
    async with run_server(parser) as server:
        peer = await raw_client(
            server.port,
            path="/graphql?a=1&b=2",
            more="Sec-WebSocket-Protocol: graphql-ws , other\r\nOrigin: http://o\r\n",
        )
        assert f"Sec-WebSocket-Protocol: {SUBPROTOCOL}" in await peer.read_head()
        request = server.requests[0]
        assert (request.path, request.query) == ("/graphql", "a=1&b=2")
        assert request.subprotocols == (SUBPROTOCOL, "graphql-ws", "other")
        assert request.headers["ORIGIN"] == "http://o"
        assert request.remote.startswith("127.0.0.1:")
        assert server.sessions[0].socket.remote == request.remote
        assert server.sessions[0].socket.url == "/graphql"
        assert server.sessions[0].socket.subprotocol == SUBPROTOCOL
        await finish(peer)


@both_parsers
async def test_the_handshake_can_be_completed_without_a_subprotocol(parser: HttpParser) -> None:
    seen = RecordingSink()

    def open_sink(socket: WebSocket) -> MessageSink:
        socket.close(4406, "Subprotocol not acceptable")
        return seen

    async with run_server(parser, answer=lambda _: Accept(subprotocol=None, open_sink=open_sink)) as server:
        peer = await raw_client(server.port)
        head = await peer.read_head()
        assert "101" in head
        assert "sec-websocket-protocol" not in head.lower()
        close = await peer.read_frame()
        assert close.close_code == 4406
        peer.send_frame(CLOSE, close.payload)
        assert await seen.close_code() == 4406
        await peer.close()


@both_parsers
async def test_firefox_may_list_keep_alive_beside_upgrade(parser: HttpParser) -> None:
    async with run_server(parser) as server:
        request = upgrade_request().replace(b"Connection: Upgrade", b"Connection: keep-alive, Upgrade")
        peer = Peer(*await asyncio.open_connection("127.0.0.1", server.port), masks=True)
        peer.send(request)
        assert "101" in await peer.read_head()
        await finish(peer)


# Refusals --------------------------------------------------------------------------------------------------


@both_loops
@both_parsers
def test_a_wrong_path_is_404(loop: str, parser: HttpParser) -> None:
    async def test() -> None:
        async with run_server(parser) as server:
            with pytest.raises(HandshakeFailed, match="404"):
                await open_client(server.port, RecordingSink(), path="/nowhere")
            peer = await raw_client(server.port, path="/nowhere")
            head = await peer.read_head()
            assert head.startswith("HTTP/1.1 404")
            assert "connection: close" in head.lower()
            assert await peer.read_to_end() == b"there is no WebSocket here"
            await peer.close()

    run_on(loop, test)


@both_parsers
async def test_a_refusal_carries_its_status_and_headers(parser: HttpParser) -> None:
    refuse = Refuse(status=401, headers={"WWW-Authenticate": "Bearer"})
    async with run_server(parser, answer=lambda _: refuse) as server:
        with pytest.raises(AuthenticationFailed):
            await open_client(server.port, RecordingSink(), authorization="Bearer wrong")
        peer = await raw_client(server.port)
        head = await peer.read_head()
        assert "WWW-Authenticate: Bearer" in head
        assert "Content-Length: 0" in head
        assert await peer.read_to_end() == b""
        await peer.close()


@both_parsers
async def test_a_decision_that_fails_is_500_and_tells_the_client_nothing(
    parser: HttpParser, capsys: pytest.CaptureFixture[str]
) -> None:
    def answer(_request: UpgradeRequest) -> UpgradeAnswer:
        raise RuntimeError("the secret plan")

    async with run_server(parser, answer=answer) as server:
        peer = await raw_client(server.port)
        assert (await peer.read_head()).startswith("HTTP/1.1 500")
        assert await peer.read_to_end() == b"internal error"
        await peer.close()
    assert "the secret plan" in capsys.readouterr().err


@both_parsers
@pytest.mark.parametrize(
    ("old", "new", "status"),
    [
        (b"Sec-WebSocket-Version: 13", b"Sec-WebSocket-Version: 8", 426),
        (b"Sec-WebSocket-Version: 13\r\n", b"", 426),
        (b"Sec-WebSocket-Key: ", b"Sec-WebSocket-Key: short", 400),
        (b"Sec-WebSocket-Key: ", b"X-Key: ", 400),
        (b"GET ", b"POST ", 400),
    ],
)
async def test_a_broken_handshake_is_refused(parser: HttpParser, old: bytes, new: bytes, status: int) -> None:
    async with run_server(parser) as server:
        peer = Peer(*await asyncio.open_connection("127.0.0.1", server.port), masks=True)
        peer.send(upgrade_request().replace(old, new))
        head = await peer.read_head()
        assert head.startswith(f"HTTP/1.1 {status}")
        assert status != 426 or "Sec-WebSocket-Version: 13" in head
        await peer.read_to_end()
        await peer.close()
        assert server.sessions == []


# Rules of the socket, behind uvicorn -----------------------------------------------------------------------


@both_loops
@both_parsers
@pytest.mark.parametrize("violation", ["unmasked", "too big", "not UTF-8", "binary"])
def test_violations_are_closed_with_their_code(loop: str, parser: HttpParser, violation: str) -> None:
    async def test() -> None:
        async with run_server(parser) as server:
            peer = await raw_client(server.port)
            await peer.read_head()
            code, data = {
                "unmasked": (1002, b"\x81\x01x"),
                "too big": (1009, peer.frame(TEXT, b"x" * 65_537)),
                "not UTF-8": (1007, peer.frame(TEXT, b"\xff")),
                "binary": (1003, peer.frame(0x2, b"x")),
            }[violation]
            peer.send(data)
            close = await peer.read_frame()
            assert close.close_code == code
            peer.send_frame(CLOSE, close.payload)
            await peer.read_to_end()
            await peer.close()
            await server.sessions[0].seen.wait_until(lambda: server.sessions[0].seen.closed)
            assert server.sessions[0].seen.closed[0][0] == code
            assert server.sessions[0].seen.messages == []

    run_on(loop, test)


@both_loops
def test_a_client_in_the_middle_of_a_message_that_is_too_long_reads_that_it_is(loop: str) -> None:
    async def test() -> None:
        async with run_server("httptools") as server:
            peer = await raw_client(server.port)
            await peer.read_head()
            data = peer.frame(TEXT, b"x" * 8 * 1024 * 1024)
            # As over a slow line: it is still sending long after the server has said so.
            for sent in range(0, 2 * 1024 * 1024, 64 * 1024):
                peer.send(data[sent : sent + 64 * 1024])
                await peer.writer.drain()
                await asyncio.sleep(0.01)  # the line's slowness
            close = await peer.read_frame()
            assert close.close_code == 1009
            assert await peer.read_to_end() == b""
            await peer.close()
            assert await server.sessions[0].seen.close_code() == 1009

    run_on(loop, test)


@both_loops
def test_a_client_that_goes_on_sending_for_ever_is_dropped_after_the_closing_time(loop: str) -> None:
    async def test() -> None:
        async with run_server("httptools", close_seconds=0.2) as server:
            peer = await raw_client(server.port)
            await peer.read_head()
            peer.send(peer.frame(TEXT, b"x" * 65_537))
            with contextlib.suppress(ConnectionError):
                async with asyncio.timeout(PATIENCE_SECONDS):
                    while not server.sessions[0].seen.closed:
                        peer.send(b"x" * 1024)
                        await peer.writer.drain()
                        await asyncio.sleep(0.01)  # a peer that never stops
            assert await server.sessions[0].seen.close_code() == 1009
            peer.vanish()

    run_on(loop, test)


@both_loops
@both_parsers
def test_a_client_that_vanishes_is_1006_and_is_not_counted_any_more(loop: str, parser: HttpParser) -> None:
    async def test() -> None:
        async with run_server(parser) as server:
            peer = await raw_client(server.port)
            await peer.read_head()
            peer.vanish()
            seen = server.sessions[0].seen
            assert await seen.close_code() == 1006
            # uvicorn waits for the connections it counts: a forgotten one would hang this stop.
            server.stop()
            await asyncio.wait_for(server.stopped.wait(), PATIENCE_SECONDS)

    run_on(loop, test)


# The graceful stop -----------------------------------------------------------------------------------------


@both_loops
@both_parsers
def test_a_graceful_stop_flushes_then_closes_with_1012(loop: str, parser: HttpParser) -> None:
    async def test() -> None:
        async with run_server(parser) as server:
            peer = await raw_client(server.port)
            await peer.read_head()
            peer.send_frame(TEXT, json.dumps({"large": "x" * 60_000}).encode())
            sent = await peer.read_frame()
            for _ in range(40):
                server.sessions[0].socket.send_message(sent.payload)
            server.stop()
            for _ in range(40):
                assert (await peer.read_frame()).payload == sent.payload
            close = await peer.read_frame()
            assert close.close_code == 1012
            peer.send_frame(CLOSE, close.payload)
            assert await peer.read_to_end() == b""
            await peer.close()
            await asyncio.wait_for(server.stopped.wait(), PATIENCE_SECONDS)
            assert server.sessions[0].seen.closed == [(1012, "the server is shutting down")]

    run_on(loop, test)


@both_loops
@both_parsers
def test_a_client_that_ignores_the_close_does_not_hold_up_the_stop(loop: str, parser: HttpParser) -> None:
    async def test() -> None:
        async with run_server(parser, close_seconds=0.05) as server:
            peer = await raw_client(server.port)
            await peer.read_head()
            server.stop()
            await asyncio.wait_for(server.stopped.wait(), PATIENCE_SECONDS)
            assert server.sessions[0].seen.closed[0][0] == 1012
            await peer.read_to_end()
            await peer.close()

    run_on(loop, test)


@both_parsers
async def test_a_session_that_has_begun_to_close_keeps_its_code(parser: HttpParser) -> None:
    async with run_server(parser, close_seconds=0.05) as server:
        peer = await raw_client(server.port)
        await peer.read_head()
        server.sessions[0].socket.close(1013, "overloaded")
        server.stop()
        assert (await peer.read_frame()).close_code == 1013
        await asyncio.wait_for(server.stopped.wait(), PATIENCE_SECONDS)
        assert server.sessions[0].seen.closed == [(1013, "overloaded")]
        await peer.close()
