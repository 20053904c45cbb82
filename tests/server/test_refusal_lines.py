"""Each refusal is one line with its reason, and with nothing of what the client wrote."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterator, MutableMapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec
import pytest
from structlog.testing import capture_logs

from circuit_breaker_server import RateSettings, Server, ServerSettings, TokenSettings, logs
from tests.server.certificates import Authority
from tests.server.stage import Client
from tests.server.tokens import SECRET, token
from tests.transports.peers import SUBPROTOCOL, TEXT, raw_client
from tests.waiting import until

Line = MutableMapping[str, Any]
WORD: Final = "swordfish"
VALID: Final = token(exp=time.time() + 3600)
EXPIRED: Final = token(exp=time.time() - 3600)


@pytest.fixture(autouse=True)
def _level_of_before() -> Iterator[None]:
    yield
    logs.configure("warning")


@contextlib.asynccontextmanager
async def served(data_dir: Path, **settings: Any) -> AsyncIterator[tuple[Server, list[Line]]]:
    """Run a server with authentication, and collect its lines; at debug, so that none is missed."""
    given = {"token_keys": TokenSettings(key=SECRET), "allowed_hosts": ("localhost",), **settings}
    async with Server(
        ServerSettings(data_dir=data_dir / "data", port=0, log_level="debug", **given)
    ) as server:
        with capture_logs() as lines:
            yield server, lines


def refusals(lines: Sequence[Line]) -> list[tuple[str, str]]:
    assert WORD not in str(lines)
    assert VALID not in str(lines)
    assert EXPIRED not in str(lines)
    found = [line for line in lines if line["event"] == "refused"]
    assert all(line["log_level"] == "info" and line["remote"].startswith("127.0.0.1") for line in found)
    return [(line["kind"], line["reason"]) for line in found]


def request(
    line: str, *headers: str, body: bytes = b"", host: str = "localhost", bearer: str | None = None
) -> bytes:
    own = [f"Host: {host}", f"Content-Length: {len(body)}", *headers]
    if bearer is not None:
        own.append(f"Authorization: Bearer {bearer}")
    return "\r\n".join((f"{line} HTTP/1.1", *own, "", "")).encode() + body


def post(
    body: object, *headers: str, path: str = "/graphql", bearer: str | None = VALID, kind: str = "json"
) -> bytes:
    encoded = msgspec.json.encode(body)
    return request(f"POST {path}", f"Content-Type: application/{kind}", *headers, body=encoded, bearer=bearer)


def upgrade(path: str = "/graphql", *headers: str, version: str = "13", key: str = "x" * 22 + "==") -> bytes:
    own = ("Upgrade: websocket", "Connection: Upgrade", f"Sec-WebSocket-Version: {version}")
    offered = f"Sec-WebSocket-Protocol: {SUBPROTOCOL}"
    return request(f"GET {path}", *own, f"Sec-WebSocket-Key: {key}", offered, *headers)


async def answered(port: int, data: bytes) -> int:
    """Send bytes, and return the status of the answer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(data)
        async with asyncio.timeout(10):
            head = await reader.readuntil(b"\r\n\r\n")
        return int(head.split()[1])
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


class Case(NamedTuple):
    """A request that is refused."""

    data: bytes
    status: int
    kind: str
    reason: str
    settings: dict[str, Any] = {}  # noqa: RUF012 (never changed)


EVENTS: Final = "Accept: text/event-stream"
CASES: Final = {
    "wrong path": Case(request(f"GET /{WORD}?token={WORD}"), 404, "request", "not_found"),
    "wrong method": Case(request("PUT /graphql/poll"), 405, "request", "method"),
    "unknown method": Case(request(f"{WORD.upper()} /graphql/poll"), 400, "request", "malformed"),
    "wrong origin": Case(post({}, f"Origin: https://{WORD}.example"), 403, "request", "origin"),
    "wrong host": Case(request("GET /health", host=f"{WORD}.example"), 421, "request", "host"),
    "no token": Case(post({"query": WORD}, bearer=None), 401, "request", "unauthenticated"),
    "not a token": Case(post({"query": WORD}, bearer=WORD), 401, "request", "unauthenticated"),
    "expired token": Case(post({"query": WORD}, bearer=EXPIRED), 401, "request", "unauthenticated"),
    "a poll without a token": Case(
        post({"query": WORD}, path="/graphql/poll", bearer=None), 401, "request", "unauthenticated"
    ),
    "a stream without a token": Case(
        post({"query": WORD}, EVENTS, bearer=None), 401, "request", "unauthenticated"
    ),
    "a stream of an unknown token": Case(
        request("GET /graphql/stream", EVENTS, f"X-GraphQL-Event-Stream-Token: {WORD}"),
        404,
        "request",
        "not_found",
    ),
    "a stream of an unreadable document": Case(
        post({"query": f"subscription {{ {WORD} }}"}, EVENTS, path="/graphql/stream"),
        200,
        "request",
        "invalid",
    ),
    "too large a body": Case(
        post({"query": WORD + " " * 2000}), 413, "request", "too_large", {"max_body_bytes": 1000}
    ),
    "too large a header": Case(request("GET /health", f"X-More: {WORD * 2000}"), 431, "request", "too_large"),
    "too long a line": Case(request(f"GET /{WORD * 2000}"), 414, "request", "too_large"),
    "no request": Case(f"{WORD}\r\n\r\n".encode(), 400, "request", "malformed"),
    "not finished": Case(
        f"GET /{WORD} HTTP/1.1\r\n".encode(), 408, "request", "timeout", {"head_seconds": 0.05}
    ),
    "no JSON": Case(request("POST /graphql", body=b"{", bearer=VALID), 415, "request", "malformed"),
    "not an object": Case(post([WORD]), 400, "request", "malformed"),
    "a query that is none": Case(post({"query": f"{{ {WORD} }}"}), 200, "request", "invalid"),
    "a variable that is none": Case(
        post({"query": "query($id: ID!) { workflow(id: $id) { id } }", "variables": {"ID": WORD}}),
        200,
        "request",
        "invalid",
    ),
    "a poll that is none": Case(
        post({"operations": WORD}, path="/graphql/poll"), 400, "request", "malformed"
    ),
    "a poll of a query that is none": Case(
        post({"query": f"subscription {{ {WORD} }}"}, path="/graphql/poll"), 200, "operation", "invalid"
    ),
    "a poll after no cursor": Case(
        post(
            {
                "query": "subscription { resourceUpdates { id } }",
                "extensions": {"resume": {"after": WORD}},
            },
            path="/graphql/poll",
        ),
        200,
        "subscription",
        "invalid",
    ),
    "an upgrade of a wrong path": Case(upgrade(f"/{WORD}?token={WORD}"), 404, "upgrade", "not_found"),
    "an upgrade of a wrong origin": Case(
        upgrade("/graphql", f"Origin: https://{WORD}.example"), 403, "upgrade", "origin"
    ),
    "an upgrade of a wrong version": Case(upgrade(version="8"), 426, "upgrade", "malformed"),
    "too many connections": Case(
        request("GET /health"), 503, "connection", "connections", {"max_connections": 1}
    ),
    "too many connections of an address": Case(
        request("GET /health"), 429, "connection", "connections", {"max_connections_per_address": 1}
    ),
}


@pytest.mark.parametrize("name", CASES)
async def test_a_request_that_is_refused_has_one_line_with_its_reason(tmp_path: Path, name: str) -> None:
    case = CASES[name]
    async with served(tmp_path, **case.settings) as (server, lines):
        if case.kind == "connection":
            _, writer = await asyncio.open_connection("127.0.0.1", server.port)
            status = await answered(server.port, case.data)
            writer.close()
        else:
            status = await answered(server.port, case.data)
    assert (status, refusals(lines)) == (case.status, [(case.kind, case.reason)])
    assert server.instruments.refused[case.reason] == 1  # type: ignore[index]  # the case's own


async def test_what_is_asked_too_often_has_one_line_for_each_refusal(tmp_path: Path) -> None:
    rates = RateSettings(operations_per_second=1)
    async with served(tmp_path, rates=rates) as (server, lines):
        statuses = [await answered(server.port, post({"query": "{ health }"})) for _ in range(2)]
    assert statuses == [200, 429]
    assert refusals(lines) == [("request", "rate")]


async def test_connects_that_are_too_many_a_second_are_refused_with_a_line(tmp_path: Path) -> None:
    async with served(tmp_path, rates=RateSettings(connects_per_second=1)) as (server, lines):
        statuses = [await answered(server.port, upgrade()) for _ in range(2)]
    assert statuses == [101, 429]
    assert refusals(lines) == [("upgrade", "rate")]


async def test_a_server_that_drains_refuses_with_a_line(tmp_path: Path) -> None:
    async with served(tmp_path) as (server, lines):
        server._draining.begin()
        assert await answered(server.port, post({"query": WORD})) == 503
    assert refusals(lines) == [("request", "draining")]


async def test_a_server_that_is_not_ready_says_so_in_a_line(tmp_path: Path) -> None:
    async with served(tmp_path) as (server, lines):
        server._draining.begin()
        assert await answered(server.port, request("GET /health/ready")) == 503
    assert refusals(lines) == [("request", "not_ready")]


async def test_what_is_no_tls_handshake_has_a_line(tmp_path: Path) -> None:
    cert, key = Authority().write(tmp_path)
    async with served(tmp_path, tls_cert=cert, tls_key=key) as (server, lines):
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(request(f"GET /{WORD}"))
        with contextlib.suppress(OSError):
            await reader.read()
        writer.close()
        await until(lambda: server.instruments.refused["tls"])
    assert refusals(lines) == [("handshake", "tls")]


# --- WebSockets ------------------------------------------------------------------------------------


def init(bearer: str | None = VALID) -> dict[str, object]:
    return {"type": "connection_init", "payload": {"Authorization": f"Bearer {bearer}"} if bearer else {}}


def subscribe(query: str, operation_id: str = "1") -> dict[str, object]:
    return {"type": "subscribe", "id": operation_id, "payload": {"query": query}}


LIVE: Final = "subscription { resourceUpdates { id } }"


class Closed(NamedTuple):
    """Messages for which the server closes."""

    messages: Sequence[object]
    code: int
    reason: str
    settings: dict[str, Any] = {}  # noqa: RUF012 (never changed)


CLOSED: Final = {
    "no token": Closed([init(None)], 4403, "unauthenticated"),
    "expired token": Closed([init(EXPIRED)], 4403, "unauthenticated"),
    "not a message": Closed([WORD], 4400, "malformed"),
    "not acknowledged": Closed([subscribe(WORD)], 4401, "malformed"),
    "twice": Closed([init(), init()], 4429, "malformed"),
    "no init": Closed([], 4408, "timeout", {"init_timeout_seconds": 0.05}),
    "an id in use": Closed([init(), subscribe(LIVE, WORD), subscribe(LIVE, WORD)], 4409, "conflict"),
    "too long an id": Closed([init(), subscribe(LIVE, WORD * 20)], 4400, "malformed"),
    "too large a message": Closed([{WORD: " " * 2000}], 1009, "too_large", {"max_message_bytes": 1000}),
}


@pytest.mark.parametrize("name", CLOSED)
async def test_a_websocket_that_is_refused_has_one_line_with_its_reason(tmp_path: Path, name: str) -> None:
    case = CLOSED[name]
    async with served(tmp_path, **case.settings) as (server, lines):
        client = Client(await raw_client(server.port))
        assert "101" in await client.peer.read_head()
        for message in case.messages:
            client.peer.send_frame(TEXT, msgspec.json.encode(message))
        assert await closed_with(client) == case.code
        await client.leave()
        await gone(server)
    assert refusals(lines) == [("websocket", case.reason)]


async def closed_with(client: Client) -> int:
    """Return the code of the server's close, behind whatever it has sent before."""
    async with asyncio.timeout(10):
        while True:
            frame = await client.peer.read_frame()
            if frame.opcode == 8:
                return int.from_bytes(frame.payload[:2])


async def gone(server: Server) -> None:
    """Wait until the server has no WebSocket any more."""
    endpoints = server._endpoints
    assert endpoints is not None
    await until(lambda: not len(endpoints.sessions))


async def test_a_websocket_without_our_subprotocol_is_refused_with_a_line(tmp_path: Path) -> None:
    async with served(tmp_path) as (server, lines):
        data = upgrade().replace(SUBPROTOCOL.encode(), WORD.encode())
        assert await answered(server.port, data) == 101
        await gone(server)
    assert refusals(lines) == [("websocket", "subprotocol")]


AFTER: Final = {"resume": {"after": WORD}}


@pytest.mark.parametrize(
    ("payload", "kind"),
    [
        ({"query": f"{{ {WORD} }}"}, "operation"),
        ({"query": f"subscription {{ {WORD} }}"}, "operation"),
        ({"query": LIVE, "extensions": AFTER}, "subscription"),
    ],
)
async def test_an_operation_that_is_refused_has_a_line_and_others_go_on(
    tmp_path: Path, payload: dict[str, object], kind: str
) -> None:
    async with served(tmp_path) as (server, lines):
        client = Client(await raw_client(server.port))
        assert "101" in await client.peer.read_head()
        client.send(init())
        client.send({"type": "subscribe", "id": "1", "payload": payload})
        client.send(subscribe("{ health }", "2"))
        async with asyncio.timeout(10):
            while (await client.receive()) != {"type": "complete", "id": "2"}:
                pass
        await client.leave()
        await gone(server)
    assert refusals(lines) == [(kind, "invalid")]


async def test_the_life_of_a_connection_and_its_subscription_is_told(tmp_path: Path) -> None:
    async with served(tmp_path) as (server, lines):
        client = Client(await raw_client(server.port))
        assert "101" in await client.peer.read_head()
        client.send(init())
        client.send(subscribe(LIVE))
        client.send(subscribe("{ health }", "2"))
        async with asyncio.timeout(10):
            while (await client.receive()) != {"type": "complete", "id": "2"}:
                pass
        client.send({"type": "complete", "id": "1"})
        await client.leave()
        await gone(server)
    events = [line["event"] for line in lines if line["log_level"] == "info"]
    assert events == ["opened", "acknowledged", "subscribed", "ended", "closed"]
    ended, closed = (next(line for line in lines if line["event"] == name) for name in ("ended", "closed"))
    assert (ended["field"], ended["events"], ended["denied"]) == ("resourceUpdates", 0, 0)
    assert closed["seconds"] >= 0
    assert closed["events"] == 0
