"""Whatever a server sends: bounded memory, and an end with an error that says what was wrong."""

from __future__ import annotations

import asyncio
import gzip
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Final, NamedTuple

import msgspec
import pytest

from circuit_breaker_sdk import Client
from circuit_breaker_sdk.config import ErrorRecoveryPolicy, MessageLimits, Timeouts
from circuit_breaker_sdk.connections import ConnectionSettings, Credentials, PollConnection
from circuit_breaker_sdk.errors import (
    CircuitBreakerError,
    ConnectionFailed,
    DecodeError,
    HandshakeFailed,
    OperationError,
    OperationTimeoutError,
    ProtocolError,
    SubscriptionFailed,
)
from tests.connections.raw_server import (
    RecordingRoute,
    acknowledge,
    read_message,
    send_message,
    stay,
    subscribe,
)
from tests.transports.peers import CLOSE, CONTINUATION, PING, TEXT, Peer, serve

Script = Callable[[Peer], Awaitable[None]]

LIMITS: Final = MessageLimits(max_message_bytes=1024 * 1024)
TIMEOUTS: Final = Timeouts(
    connect_seconds=0.5,
    acknowledge_seconds=0.5,
    subscribe_seconds=0.5,
    execute_seconds=0.5,
    close_seconds=0.2,
)
# The largest of these messages, decoded, and what its peer holds in the same process; no flood comes near it.
BOUND_BYTES: Final = 40 * 1024 * 1024
ENDLESS: Final = b"x" * 65_536


@pytest.fixture(autouse=True)
def _bounded_memory() -> object:
    tracemalloc.start()
    try:
        yield
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < BOUND_BYTES, f"{peak / 1e6:.0f} MB"


def _unjudged(script: Script) -> Script:
    """The client hangs up in the middle: that is no failure of the peer."""

    async def run(peer: Peer) -> None:
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            await script(peer)

    return run


@asynccontextmanager
async def client_of(script: Script, limits: MessageLimits = LIMITS) -> AsyncIterator[Client]:
    async with (
        serve(_unjudged(script)) as port,
        Client(
            f"ws://127.0.0.1:{port}/graphql",
            timeouts=TIMEOUTS,
            limits=limits,
            recovery=ErrorRecoveryPolicy(max_retries=0),
        ) as client,
    ):
        yield client


async def end_of_a_subscription(script: Script, limits: MessageLimits = LIMITS) -> CircuitBreakerError:
    async with client_of(script, limits) as client:
        with pytest.raises(CircuitBreakerError) as caught:
            async for _ in await client.subscribe("subscription { tick }", type=int):
                pass
    assert len(str(caught.value)) < 30_000
    return caught.value


async def end_of_a_query(script: Script, limits: MessageLimits = LIMITS) -> CircuitBreakerError:
    async with client_of(script, limits) as client:
        with pytest.raises(CircuitBreakerError) as caught:
            await client.execute("{ health }", type=dict[str, object])
    assert len(str(caught.value)) < 30_000
    return caught.value


async def started(peer: Peer) -> str:
    """Open the conversation with resume, take the first subscription and return its id."""
    await acknowledge(peer, {"resume": {"version": 1, "epoch": "e"}})
    return str((await read_message(peer))["id"])


async def flood(peer: Peer, data: bytes) -> None:
    while True:
        peer.send(data)
        await peer.writer.drain()


def frames(first: Callable[[Peer], bytes], then: Callable[[Peer], bytes] | None = None) -> Script:
    async def script(peer: Peer) -> None:
        await started(peer)
        peer.send(first(peer))
        await (stay(peer) if then is None else flood(peer, then(peer)))

    return script


def message(text: str) -> Script:
    """A server that sends this text, with the operation's id for ID."""

    async def script(peer: Peer) -> None:
        id_ = await started(peer)
        peer.send_frame(TEXT, text.replace("ID", id_).encode())
        await stay(peer)

    return script


def nested(depth: int, opening: str = "[", closing: str = "]") -> str:
    return opening * depth + "1" + closing * depth


class Case(NamedTuple):
    script: Script
    error: type[CircuitBreakerError]
    told: str


BROKEN_STREAMS: dict[str, Case] = {
    "a message over the limit": Case(
        frames(lambda peer: peer.frame(TEXT, b"x" * (LIMITS.max_message_bytes + 1))), ProtocolError, "1048577"
    ),
    "a header that announces 2^62 bytes": Case(
        frames(lambda _: b"\x81\x7f" + (2**62).to_bytes(8), lambda _: ENDLESS), ProtocolError, "exceeding max"
    ),
    "a ping that announces 2^62 bytes": Case(
        frames(lambda _: b"\x89\x7f" + (2**62).to_bytes(8), lambda _: ENDLESS), ProtocolError, "125 bytes"
    ),
    "a close that announces 2^62 bytes": Case(
        frames(lambda _: b"\x88\x7f" + (2**62).to_bytes(8), lambda _: ENDLESS), ProtocolError, "125 bytes"
    ),
    "endless empty fragments": Case(
        frames(
            lambda peer: peer.frame(TEXT, b"", fin=False),
            lambda peer: peer.frame(CONTINUATION, b"", fin=False) * 500,
        ),
        ProtocolError,
        "more than 1024 fragments",
    ),
    "fragments over the limit together": Case(
        frames(
            lambda peer: peer.frame(TEXT, ENDLESS, fin=False),
            lambda peer: peer.frame(CONTINUATION, ENDLESS, fin=False),
        ),
        ProtocolError,
        "message over 1048576 bytes",
    ),
    "invalid UTF-8": Case(
        frames(lambda peer: peer.frame(TEXT, b'{"type":"\xff"}')), ProtocolError, "not valid UTF-8"
    ),
    "a close reason that is no text": Case(
        frames(lambda peer: peer.frame(CLOSE, b"\x03\xe8\xff\xfe")), ProtocolError, "invalid UTF-8"
    ),
    "a close code that must not be sent": Case(
        frames(lambda peer: peer.frame(CLOSE, (1005).to_bytes(2))), ProtocolError, "invalid close code"
    ),
    "half a close code": Case(frames(lambda peer: peer.frame(CLOSE, b"\x03")), ProtocolError, "close"),
    "data nested 10,000 deep": Case(
        message(f'{{"id":"ID","type":"next","payload":{{"data":{{"tick":{nested(10_000)}}}}}}}'),
        DecodeError,
        "nested too deep",
    ),
    "errors nested 10,000 deep": Case(
        message(f'{{"id":"ID","type":"error","payload":{nested(10_000)}}}'),
        SubscriptionFailed,
        "nested too deep",
    ),
    "extensions nested 10,000 deep": Case(
        message(f'{{"id":"ID","type":"error","payload":[{{"message":"m","extensions":{nested(10_000)}}}]}}'),
        SubscriptionFailed,
        "nested too deep",
    ),
    "a payload nested 10,000 deep": Case(
        message(f'{{"type":"ping","payload":{{"a":{nested(10_000)}}}}}'),
        ProtocolError,
        "nested deeper than 500",
    ),
    "extensions nested 700 deep": Case(
        message(
            f'{{"id":"ID","type":"error","payload":[{{"message":"m","extensions":{{"a":{nested(700)}}}}}]}}'
        ),
        SubscriptionFailed,
        "failed: m",
    ),
    "a cursor of 1 MiB in an event": Case(
        message(
            '{"id":"ID","type":"next","payload":{"data":{"tick":1},"extensions":{"resume":{"cursor":"%s"}}}}'
            % ("c" * 1_000_000)
        ),
        DecodeError,
        "length <= 4096",
    ),
    "a cursor of 1 MiB in a ping": Case(
        message('{"type":"ping","payload":{"resume":{"id":"ID","cursor":"%s"}}}' % ("c" * 1_000_000)),
        SubscriptionFailed,
        "a cursor is over 4096 characters",
    ),
    "an id of another type": Case(
        message('{"id":7,"type":"complete"}'), ProtocolError, "id must be a string"
    ),
    "a client's message": Case(
        message('{"id":"ID","type":"subscribe","payload":{"query":"x"}}'), ProtocolError, "not a server's"
    ),
}


@pytest.mark.parametrize("name", BROKEN_STREAMS)
async def test_a_broken_stream_ends_in_an_error_that_says_how(name: str) -> None:
    case = BROKEN_STREAMS[name]
    error = await end_of_a_subscription(case.script)
    assert type(error) is case.error
    assert case.told in str(error)


async def test_events_for_ids_that_were_never_subscribed_leave_nothing_and_disturb_nobody() -> None:
    async def script(peer: Peer) -> None:
        id_ = await started(peer)
        for other in range(2_000):
            send_message(peer, id=f"9{other:07}", type="next", payload={"data": {"tick": other}})
            send_message(peer, id=f"9{other:07}", type="error", payload=[{"message": "m"}])
        send_message(peer, type="ping", payload={"resume": {"id": id_, "cursor": "e:1"}})
        send_message(peer, id=id_, type="complete")
        await stay(peer)

    async with client_of(script) as client:
        events = [event async for event in await client.subscribe("subscription { tick }", type=int)]
        assert events == []
        assert client.metrics.buffered_bytes == 0


@pytest.mark.parametrize(
    "flooding",
    [
        lambda peer: peer.frame(PING, b"x" * 125) * 500,
        lambda peer: peer.frame(TEXT, b'{"type":"ping","payload":{"a":"' + b"x" * 60_000 + b'"}}'),
        lambda peer: peer.frame(TEXT, b'{"type":"pong"}') * 500,
    ],
    ids=["pings of the WebSocket", "pings of the protocol", "pongs of the protocol"],
)
async def test_a_server_that_pings_without_end_and_reads_nothing_ends_in_a_timeout(
    flooding: Callable[[Peer], bytes],
) -> None:
    async def script(peer: Peer) -> None:
        await started(peer)
        await flood(peer, flooding(peer))

    assert type(await end_of_a_subscription(script)) is OperationTimeoutError


async def test_a_hundred_thousand_errors_are_kept_and_ten_are_told() -> None:
    errors = [{"message": "m"}] * 100_000
    limits = MessageLimits(max_message_bytes=16 * 1024 * 1024)
    text = msgspec.json.encode(errors).decode()
    error = await end_of_a_subscription(message(f'{{"id":"ID","type":"error","payload":{text}}}'), limits)
    assert isinstance(error, SubscriptionFailed)
    assert len(error.errors) == 100_000
    assert str(error).endswith("m; m; and 99990 more")


async def test_a_message_of_a_mebibyte_is_cut_where_it_is_told() -> None:
    text = msgspec.json.encode([{"message": "m" * 1_000_000}]).decode()
    error = await end_of_a_subscription(message(f'{{"id":"ID","type":"error","payload":{text}}}'))
    assert isinstance(error, SubscriptionFailed)
    assert len(str(error)) < 2_100


async def test_a_close_reason_cannot_begin_a_line_of_a_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG", "circuit_breaker_sdk")
    reason = b"\x1b[2J\r\nCRITICAL all is lost"
    await end_of_a_subscription(frames(lambda peer: peer.frame(CLOSE, (4400).to_bytes(2) + reason)))
    assert "all is lost" in caplog.text
    assert "\x1b" not in caplog.text
    assert not any(line.startswith("CRITICAL") for line in caplog.text.splitlines())


# The handshake and HTTP ------------------------------------------------------------------------------------


def answer(head: str, then: bytes = b"", *, endless: bool = False) -> Script:
    async def script(peer: Peer) -> None:
        await peer.read_head()
        peer.send(head.encode() + then)
        await (flood(peer, then) if endless else peer.read_to_end())

    return script


async def drip(peer: Peer) -> None:
    """Send the answer byte by byte, as many as the client waits for."""
    await peer.read_head()
    gone = asyncio.create_task(peer.reader.read())
    for byte in b"HTTP/1.1 200 OK\r\nX-A: " + b"x" * 1_000:
        peer.send(bytes((byte,)))
        done, _ = await asyncio.wait((gone,), timeout=0.05)
        if done:
            break
    gone.cancel()
    await asyncio.wait((gone,))


HEADER = b"X-A: " + b"x" * 1_000 + b"\r\n"
JSON = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
HANDSHAKES: dict[str, Case] = {
    "endless headers": Case(answer("HTTP/1.1 101 S\r\n", HEADER, endless=True), HandshakeFailed, "max_size"),
    "one endless header": Case(
        answer("HTTP/1.1 101 S\r\nX-A: ", ENDLESS, endless=True), HandshakeFailed, "max_size"
    ),
    "a byte now and then": Case(drip, OperationTimeoutError, "within 0.5 s"),
    "an endless page": Case(
        answer("HTTP/1.1 404 N\r\nContent-Length: 99999999999\r\n\r\n", ENDLESS, endless=True),
        HandshakeFailed,
        "HTTP 404",
    ),
}


@pytest.mark.parametrize("name", HANDSHAKES)
async def test_a_broken_handshake_ends_in_an_error_that_says_how(name: str) -> None:
    case = HANDSHAKES[name]
    error = await end_of_a_subscription(case.script)
    assert type(error) is case.error
    assert case.told in str(error)


def body(text: str | bytes, more: str = "") -> Script:
    data = text.encode() if isinstance(text, str) else text
    return answer(f"{JSON}{more}Content-Length: {len(data)}\r\n\r\n", data)


BOMB: Final = gzip.compress(bytes(200 * 1024 * 1024), compresslevel=6)
ANSWERS: dict[str, Case] = {
    "an endless answer": Case(
        answer(f"{JSON}Content-Length: 99999999999\r\n\r\n", ENDLESS, endless=True),
        ConnectionFailed,
        "max_message_bytes",
    ),
    "endless chunks": Case(
        answer(f"{JSON}Transfer-Encoding: chunked\r\n\r\n", b"10000\r\n" + ENDLESS + b"\r\n", endless=True),
        ConnectionFailed,
        "max_message_bytes",
    ),
    "a gzip bomb": Case(body(BOMB, "Content-Encoding: gzip\r\n"), ConnectionFailed, "max_message_bytes"),
    "endless headers": Case(
        answer("HTTP/1.1 200 OK\r\n", HEADER, endless=True), ConnectionFailed, "Too many headers"
    ),
    "a byte now and then": Case(drip, OperationTimeoutError, "within 0.5 s"),
    "data nested 10,000 deep": Case(
        body(f'{{"data":{{"a":{nested(10_000)}}}}}'), ConnectionFailed, "not a GraphQL response"
    ),
    "extensions nested 10,000 deep": Case(
        body(f'{{"data":{{"a":1}},"extensions":{nested(10_000)}}}'),
        ConnectionFailed,
        "not a GraphQL response",
    ),
    "errors nested 700 deep": Case(body(f'{{"errors":[{nested(700)}]}}'), OperationError, "cannot be read"),
    "errors that are no text": Case(
        body(b'{"errors":[{"message":"\xff"}]}'), ConnectionFailed, "cannot be read"
    ),
    "a hundred thousand errors": Case(
        body(msgspec.json.encode({"errors": [{"message": "m"}] * 60_000})), OperationError, "59990 more"
    ),
}


@pytest.mark.parametrize("name", ANSWERS)
async def test_a_broken_answer_to_a_query_ends_in_an_error_that_says_how(name: str) -> None:
    case = ANSWERS[name]
    error = await end_of_a_query(case.script)
    assert type(error) is case.error
    assert case.told in str(error)


POLLS: dict[str, Case] = {
    name: case for name, case in ANSWERS.items() if "endless" in name or "bomb" in name
} | {
    "results nested 10,000 deep": Case(body(f'{{"results":{nested(10_000)}}}'), HandshakeFailed, "not that"),
    "another number of results": Case(body('{"results":[{},{}]}'), ProtocolError, "other operations"),
}


@pytest.mark.parametrize("name", POLLS)
async def test_a_broken_answer_to_a_poll_ends_in_an_error_that_says_how(name: str) -> None:
    case = POLLS[name]
    route = RecordingRoute()
    async with serve(_unjudged(case.script)) as port:
        connection = PollConnection(
            ConnectionSettings(
                url=f"ws://127.0.0.1:{port}/graphql",
                credentials=Credentials(),
                limits=LIMITS,
                timeouts=TIMEOUTS,
            )
        )
        connection.subscribe(subscribe("1"), route)
        try:
            await route.until(1)
        finally:
            await connection.aclose()
    ((call, error),) = route.calls
    assert call == "connection_lost"
    assert type(error) is case.error
    assert case.told in str(error)


@pytest.mark.parametrize(
    ("broken", "told"),
    [
        ('{"cursor":"%s"}' % ("c" * 1_000_000), "length <= 4096"),
        (r'{"cursor":"c","events":[{"data":{"tick":"\ud83d"}}]}', "surrogate"),
        ('{"cursor":"c","events":[{"data":{"tick":NaN}}]}', "NaN"),
        ("7", "Expected `object`"),
    ],
)
async def test_a_broken_result_of_a_poll_ends_its_operation_only(broken: str, told: str) -> None:
    answered = body(f'{{"results":[{broken},{{"cursor":"c-1"}}]}}')
    routes = [RecordingRoute(), RecordingRoute()]
    async with serve(_unjudged(answered)) as port:
        connection = PollConnection(
            ConnectionSettings(
                url=f"ws://127.0.0.1:{port}/graphql",
                credentials=Credentials(),
                limits=LIMITS,
                timeouts=TIMEOUTS,
            )
        )
        for number, route in enumerate(routes, start=1):
            connection.subscribe(subscribe(str(number)), route)
        try:
            await routes[0].until(1)
            await routes[1].until(1)
        finally:
            await connection.aclose()
    ((call, texts),) = routes[0].calls
    assert call == "failed"
    assert told in str(texts)
    assert routes[1].calls[0] == ("positioned", "c-1")


@pytest.mark.parametrize("status", ["301 Moved", "302 Found", "303 Other", "307 Temporary", "308 Permanent"])
async def test_a_redirect_to_another_address_takes_no_credentials_there(status: str) -> None:
    seen: list[bytes] = []

    def other(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(b"connected")
        writer.close()

    elsewhere = await asyncio.start_server(other, "127.0.0.2", 0)
    port = elsewhere.sockets[0].getsockname()[1]
    heads: list[str] = []

    async def script(peer: Peer) -> None:
        heads.append(await peer.read_head())
        peer.send(
            f"HTTP/1.1 {status}\r\nLocation: http://127.0.0.2:{port}/graphql\r\nContent-Length: 0\r\n"
            "Connection: close\r\n\r\n".encode()
        )

    try:
        async with (
            serve(script) as here,
            Client(f"http://127.0.0.1:{here}/graphql", token="token-1") as client,
        ):
            for call in (
                client.execute("{ health }", type=dict[str, str]),
                client.subscribe("subscription { tick }", type=int),
            ):
                with pytest.raises(HandshakeFailed, match="redirects are not followed") as caught:
                    await call
                assert f"127.0.0.2:{port}" in str(caught.value)
    finally:
        elsewhere.close()
        await elsewhere.wait_closed()
    assert heads
    assert all("Bearer token-1" in head for head in heads)
    assert seen == []
