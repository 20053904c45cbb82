"""Each part of a request has a bound in bytes: at the bound it passes, beyond it nothing more is taken."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import socket
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import Receive, Scope, Send

from circuit_breaker_server import Server, ServerSettings
from circuit_breaker_server.admission.connection_limits import Peers
from circuit_breaker_server.net.http_protocol import guarded_protocol
from circuit_breaker_server.net.request_limits import PIECE_BYTES, RequestLimits
from tests.waiting import until

LIMITS = RequestLimits()
GET = b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
CHUNKED = (
    b"POST /graphql HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
    b"Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
)
BODY = b'{"query":"{ health }"}'
UPGRADE = (
    b"GET /graphql HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)


def chunk(data: bytes, extension: bytes = b"") -> bytes:
    return b"%x%b\r\n%b\r\n" % (len(data), extension, data)


def target_of(size: int) -> bytes:
    empty = len(b"GET /health? HTTP/1.1")
    return (
        b"GET /health?" + b"x" * (size - empty) + b" HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    )


def header_of(size: int) -> bytes:
    return GET + b"X: " + b"v" * (size - 1) + b"\r\n\r\n"


def headers_of(size: int) -> bytes:
    size -= len(b"Hostlocalhost") + len(b"Connectionclose")
    sizes = [8_000, 8_000, 8_000, 8_000, size - 32_000]
    return GET + b"".join(b"X: " + b"v" * (each - 1) + b"\r\n" for each in sizes) + b"\r\n"


def number_of_headers(count: int) -> bytes:
    return GET + b"X: v\r\n" * (count - 2) + b"\r\n"


def trailers_of(size: int) -> bytes:
    return CHUNKED + chunk(BODY) + b"0\r\nX: " + b"v" * (size - 1) + b"\r\n\r\n"


def number_of_trailers(count: int) -> bytes:
    return CHUNKED + chunk(BODY) + b"0\r\n" + b"X: v\r\n" * (count - 4) + b"\r\n"


def body_of(size: int) -> bytes:
    return CHUNKED + chunk(BODY + b" " * (size - len(BODY))) + b"0\r\n\r\n"


@contextlib.asynccontextmanager
async def answering(path: Path, **settings: Any) -> AsyncIterator[Callable[..., Any]]:
    """Serve; yields a function that sends bytes and returns the answer."""
    async with Server(ServerSettings(data_dir=path, port=0, **settings)) as server:

        async def ask(*pieces: bytes) -> bytes:
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            try:
                async with asyncio.timeout(10):
                    for piece in pieces:
                        writer.write(piece)
                        await writer.drain()
                    with contextlib.suppress(ConnectionError):
                        return await reader.read()
                    return b"reset"
            finally:
                writer.transport.abort()

        yield ask


@pytest.mark.parametrize(
    ("build", "bound", "status"),
    [
        (target_of, LIMITS.request_line_bytes, b"414"),
        (header_of, LIMITS.header_bytes, b"431"),
        (headers_of, LIMITS.headers_bytes, b"431"),
        (number_of_headers, LIMITS.headers, b"431"),
        (trailers_of, LIMITS.trailers_bytes, b"431"),
        (number_of_trailers, LIMITS.headers, b"431"),
        (body_of, LIMITS.body_bytes, b"413"),
    ],
)
async def test_what_is_at_the_bound_passes_and_one_more_is_refused_and_closed(
    tmp_path: Path, build: Callable[[int], bytes], bound: int, status: bytes
) -> None:
    async with answering(tmp_path) as ask:
        assert (await ask(build(bound)))[9:12] == b"200"
        assert (await ask(build(bound + 1)))[9:12] == status
        whole = build(bound)
        if len(whole) < 20_000:
            assert (await ask(*(whole[n : n + 1] for n in range(len(whole)))))[9:12] == b"200"
            over = build(bound + 1)
            assert (await ask(*(over[n : n + 1] for n in range(len(over)))))[9:12] == status


class RecordingTransport(asyncio.Transport):
    """Stores what is written, and knows whether the server has ended its answer."""

    def __init__(self) -> None:
        super().__init__({"peername": ("127.0.0.1", 1)})
        self.protocol: Any = None
        self.written = b""
        self.writes = 0
        self.is_closed = False
        self.is_reading_now = True

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self.protocol = protocol

    def write(self, data: bytes | bytearray | memoryview[int]) -> None:
        self.written += bytes(data)
        self.writes += 1

    def is_closing(self) -> bool:
        return self.is_closed

    def close(self) -> None:
        self.is_closed = True

    def abort(self) -> None:
        self.is_closed = True

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.is_closed = True

    def pause_reading(self) -> None:
        self.is_reading_now = False

    def resume_reading(self) -> None:
        self.is_reading_now = True


async def never(_scope: Scope, receive: Receive, _send: Send) -> None:
    """Read the body and do not answer."""
    while (await receive())["type"] != "http.disconnect":
        pass


@contextlib.asynccontextmanager
async def connected(app: Any = never) -> AsyncIterator[RecordingTransport]:
    """Connect a transport to the protocol of a server; its ``protocol`` is the protocol."""
    config = uvicorn.Config(app, lifespan="off", log_config=None, ws="none", access_log=False)
    config.load()
    server = uvicorn.Server(config)
    made: Any = guarded_protocol(Peers(max_per_address=1), head_seconds=60, body_seconds=60)
    transport = RecordingTransport()
    made(config=config, server_state=server.server_state, app_state={}).connection_made(transport)
    try:
        yield transport
    finally:
        transport.protocol.connection_lost(None)
        for task in (tasks := list(server.server_state.tasks)):
            task.cancel()  # of requests in a queue uvicorn tells only the last that its peer has gone
        await asyncio.gather(*tasks, return_exceptions=True)


ENDLESS: dict[str, tuple[bytes, bytes, int, bytes]] = {
    "request line": (b"GET /", b"x", LIMITS.request_line_bytes, b"414"),
    "name of a header": (GET, b"x", LIMITS.header_bytes, b"431"),
    "value of a header": (GET + b"X: ", b"x", LIMITS.header_bytes, b"431"),
    "blanks before a value": (GET + b"X:", b" ", LIMITS.header_bytes, b"431"),
    "folded lines": (GET + b"X: v", b"\r\n v", LIMITS.header_bytes, b""),
    "header lines": (GET, b"X: v\r\n", LIMITS.headers * 6, b"431"),
    "long header lines": (GET, b"X: " + b"v" * 5_000 + b"\r\n", LIMITS.headers_bytes, b"431"),
    "upgrade": (UPGRADE, b"X: v\r\n", LIMITS.headers * 6, b"431"),
    "line ends before a request": (b"", b"\r\n", LIMITS.header_bytes, b"431"),
    "trailers": (CHUNKED + b"0\r\n", b"X: v\r\n", LIMITS.headers * 6, b"431"),
    "long trailers": (CHUNKED + b"0\r\n", b"X: " + b"v" * 900 + b"\r\n", LIMITS.trailers_bytes, b"431"),
    "value of a trailer": (CHUNKED + b"0\r\nX: ", b"x", LIMITS.trailers_bytes, b"431"),
    "name of a trailer": (CHUNKED + b"0\r\n", b"x", LIMITS.trailers_bytes, b"431"),
    "chunk extension": (CHUNKED + b"1;x=", b"x", LIMITS.chunk_extensions_bytes, b"413"),
    "extensions of many chunks": (
        CHUNKED,
        chunk(b"x", b";x=" + b"x" * 1_000),
        LIMITS.chunk_extensions_bytes,
        b"413",
    ),
    "zeros of a chunk's size": (CHUNKED, b"0", LIMITS.chunk_extensions_bytes, b"4"),
}


@pytest.mark.parametrize("name", ENDLESS)
@pytest.mark.parametrize("at_once", [1, 1_000, 256 * 1024])
async def test_what_never_ends_is_taken_to_its_bound_only(name: str, at_once: int) -> None:
    before, again, bound, status = ENDLESS[name]
    async with connected() as transport:
        given = 0
        endless = itertools.chain(before, itertools.cycle(again))
        while not transport.is_closed and given < 10 * bound:
            piece = bytes(itertools.islice(endless, at_once))
            transport.protocol.data_received(piece)
            given += at_once
        assert transport.is_closed
        # Of a bigger piece the parser was given no more than this.
        assert given <= max(at_once, bound + len(before) + 2 * PIECE_BYTES)
        assert transport.written.startswith(b"HTTP/1.1 " + status)
        assert transport.written.count(b"HTTP/1.1") == 1


async def test_of_a_big_read_the_parser_is_given_no_more_than_a_piece_beyond_the_bound() -> None:
    async with connected() as transport:
        parser = transport.protocol.parser
        taken = 0

        class Counting:
            def __getattr__(self, name: str) -> Any:
                return getattr(parser, name)

            def feed_data(self, data: bytes) -> None:
                nonlocal taken
                taken += len(data)
                parser.feed_data(data)

        transport.protocol.parser = Counting()
        transport.protocol.data_received(GET + b"X: " + b"v" * 10_000_000)
        assert transport.is_closed
        assert taken <= LIMITS.header_bytes + 3 * PIECE_BYTES


async def test_a_trailer_is_never_a_header(tmp_path: Path) -> None:
    seen: list[list[str]] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        await request.body()
        seen.append(sorted(request.headers))
        await JSONResponse({})(scope, receive, send)

    async with connected(app) as transport:
        trailers = b"Authorization: Bearer x\r\nContent-Type: a/b\r\nIdempotency-Key: k\r\nHost: evil\r\n"
        head = b"POST /%d HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
        for number in range(2):
            transport.protocol.data_received(head % number + chunk(b"{}") + b"0\r\n" + trailers + b"\r\n")
            async with asyncio.timeout(5):
                while len(seen) <= number:
                    assert not transport.is_closed, transport.written
                    await asyncio.sleep(0)
    assert seen == [["host", "transfer-encoding"]] * 2


async def test_a_content_type_in_a_trailer_does_not_let_a_body_be_executed(tmp_path: Path) -> None:
    head = b"POST /graphql HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
    head += b"Transfer-Encoding: chunked\r\n\r\n"
    sent = head + chunk(BODY) + b"0\r\nContent-Type: application/json\r\n\r\n"
    async with answering(tmp_path) as ask:
        assert (await ask(sent))[9:12] == b"415"


async def test_requests_sent_ahead_wait_as_bytes_and_are_answered_in_their_order() -> None:
    release = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await release.wait()
        await JSONResponse(scope["path"])(scope, receive, send)

    def is_reading() -> bool:
        return transport.is_reading_now

    async with connected(app) as transport:
        protocol = transport.protocol
        requests = b"".join(b"GET /%d HTTP/1.1\r\nHost: localhost\r\n\r\n" % n for n in range(2_000))
        protocol.data_received(requests)
        assert len(protocol.pipeline) <= PIECE_BYTES // 30
        assert not is_reading()
        protocol.data_received(b"GET /last HTTP/1.1\r\nHost: localhost\r\n\r\n")
        release.set()
        await until(lambda: not protocol.tasks)
        assert is_reading()
        paths = transport.written.split(b'"')[1::2]
        assert paths == [*(b"/%d" % n for n in range(2_000)), b"/last"]


async def test_an_answer_is_one_write_and_a_head_does_not_wait_for_a_body_that_comes_late() -> None:
    body = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/late":
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"4")]})
            await body.wait()
            await send({"type": "http.response.body", "body": b"late"})
        else:
            await JSONResponse("now")(scope, receive, send)

    async with connected(app) as transport:
        transport.protocol.data_received(b"GET /now HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await until(lambda: transport.written.endswith(b'"now"'))
        assert transport.writes == 1
        transport.protocol.data_received(b"HEAD /now HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await until(lambda: transport.written.endswith(b"\r\n\r\n"))
        transport.protocol.data_received(b"GET /late HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await until(lambda: transport.writes == 3)
        assert transport.written.endswith(b"content-length: 4\r\n\r\n")
        body.set()
        await until(lambda: transport.written.endswith(b"\r\n\r\nlate"))
        transport.protocol.data_received(b"GET /now HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        await until(lambda: transport.is_closed)
        assert transport.written.endswith(b'"now"')


async def test_who_sends_ahead_without_end_is_cut_off() -> None:
    async with connected() as transport:
        given = 0
        request = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n" * 1_000
        while not transport.is_closed and given < 10_000_000:
            transport.protocol.data_received(request)
            given += len(request)
        assert transport.is_closed
        assert given < 1_000_000


async def test_a_body_that_nobody_reads_is_stored_to_its_bound_only() -> None:
    async def app(_scope: Scope, _receive: Receive, _send: Send) -> None:
        await asyncio.Event().wait()

    async with connected(app) as transport:
        protocol = transport.protocol
        protocol.data_received(CHUNKED)
        for _ in range(30):
            protocol.data_received(chunk(b"x" * 65_536))
        assert len(protocol.cycle.body) == LIMITS.body_bytes + 1


@pytest.mark.parametrize("head", [b"GET /health HTTP/1.1", b"POST /nowhere HTTP/1.1"])
async def test_a_body_without_end_behind_an_answer_ends_the_connection(tmp_path: Path, head: bytes) -> None:
    async with answering(tmp_path) as ask:
        whole = head + b"\r\nHost: localhost\r\nContent-Length: 9999999\r\n\r\n" + b"x" * 3_000_000
        answer = await ask(whole)
        assert answer == b"reset" or answer.count(b"HTTP/1.1") >= 1


@pytest.mark.parametrize(("more", "status"), [(0, b"101"), (1, b"431")])
async def test_the_head_of_an_upgrade_has_a_bound_of_its_own(
    tmp_path: Path, more: int, status: bytes
) -> None:
    async with Server(ServerSettings(data_dir=tmp_path, port=0)) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        head = UPGRADE + (b"X: " + b"v" * 5_000 + b"\r\n") * 2 + b"X: "
        writer.write(head + b"v" * (16 * 1024 - len(head) - 4 + more) + b"\r\n\r\n")
        try:
            async with asyncio.timeout(10):
                assert (await reader.readline())[9:12] == status
        finally:
            writer.transport.abort()


async def test_bounds_are_settings(tmp_path: Path) -> None:
    async with answering(tmp_path, max_header_bytes=100, max_headers=5) as ask:
        assert (await ask(header_of(100)))[9:12] == b"200"
        refused = await ask(header_of(101))
        assert b"one header may have 100 bytes at most" in refused
        assert b"Connection: close" in refused
        assert b"Retry-After" not in refused
        assert (await ask(number_of_headers(6)))[9:12] == b"431"


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (target_of(LIMITS.request_line_bytes + 1), 414),
        (header_of(LIMITS.header_bytes + 1), 431),
        (body_of(LIMITS.body_bytes + 1)[:-7], 413),
        (
            b"POST /graphql HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            b"Content-Length: 9000000\r\n\r\n" + b" " * (LIMITS.body_bytes + 1),
            413,
        ),
        (b"no request at all\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: one\r\nHost: two\r\n\r\n", 400),
    ],
)
async def test_a_client_that_is_still_sending_can_read_why_it_was_refused(
    tmp_path: Path, request_bytes: bytes, status: int
) -> None:
    async with Server(ServerSettings(data_dir=tmp_path, port=0)) as server:
        loop = asyncio.get_running_loop()
        with socket.create_connection(("127.0.0.1", server.port)) as client:
            client.setblocking(False)
            await loop.sock_sendall(client, request_bytes)
            answer = b""
            while piece := await loop.sock_recv(client, 65_536):
                answer += piece
            for _ in range(
                3
            ):  # a closed socket would answer the first with a reset, and the second would fail
                await loop.sock_sendall(client, b"x" * 10_000)
            assert answer.startswith(b"HTTP/1.1 %d " % status)
            assert answer.count(b"HTTP/1.1") == 1
