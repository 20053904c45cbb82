"""Operations over server-sent events, against servers that share streams, that do not, and that are odd."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, final

import pytest
from aiohttp import web

from circuit_breaker_sdk import (
    AuthenticationFailed,
    ConnectionFailed,
    HandshakeFailed,
    MessageLimits,
    OperationTimeoutError,
    Timeouts,
    TransportError,
)
from circuit_breaker_sdk.config import Heartbeat
from circuit_breaker_sdk.connections import (
    ConnectionSettings,
    Credentials,
    EventStreamConnection,
    event_stream_reader,
)
from circuit_breaker_sdk.protocol.messages import Subscribe
from tests.connections.raw_server import RecordingRoute
from tests.waiting import until

TOKEN = "X-GraphQL-Event-Stream-Token"
Script = Callable[["Peer", web.StreamResponse], Awaitable[None]]


@final
class Peer:
    """A server of event streams that does what a script says, and remembers what it was asked.

    :ivar shares: whether it has streams for several operations.
    :ivar asked: method, URL parameters, headers and body of each request.
    """

    def __init__(self, script: Script, *, shares: bool = False, resume: bool = False) -> None:
        self.script = script
        self.shares = shares
        self.resume = resume
        self.refused_tokens: set[str] = set()
        self.status = 200
        self.content_type = "text/event-stream"
        self.asked: list[tuple[str, dict[str, str], dict[str, str], dict[str, object]]] = []
        self.port = 0
        self.going_on = asyncio.Event()
        self.over = asyncio.Event()

    def bodies(self, method: str = "POST") -> list[dict[str, object]]:
        return [body for asked, _, _, body in self.asked if asked == method]

    def headers(self, method: str = "POST") -> list[dict[str, str]]:
        return [headers for asked, _, headers, _ in self.asked if asked == method]

    async def answer(self, request: web.Request) -> web.StreamResponse:
        raw = await request.read()
        body = json.loads(raw) if raw else {}
        self.asked.append((request.method, dict(request.query), dict(request.headers), body))
        if request.headers.get("Authorization") in self.refused_tokens:
            return web.Response(status=401)
        if request.method == "PUT":
            return web.Response(status=201, text="ticket") if self.shares else web.Response(status=405)
        if request.method == "DELETE":
            return web.Response()
        if request.method == "POST" and TOKEN in request.headers:
            return web.Response(status=202)
        headers = {"Resume-Version": "1"} if self.resume else {}
        answer = web.StreamResponse(
            status=self.status, headers={"Content-Type": self.content_type, **headers}
        )
        await answer.prepare(request)
        with contextlib.suppress(ConnectionError):
            await self.script(self, answer)
        return answer


@contextlib.asynccontextmanager
async def serving(peer: Peer) -> AsyncIterator[Peer]:
    app = web.Application()
    app.router.add_route("*", "/graphql", peer.answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    peer.port = runner.addresses[0][1]
    try:
        yield peer
    finally:
        peer.going_on.set()
        peer.over.set()
        await runner.cleanup()


@contextlib.asynccontextmanager
async def connected(peer: Peer, **settings: object) -> AsyncIterator[EventStreamConnection]:
    given: dict[str, object] = {
        "url": f"ws://127.0.0.1:{peer.port}/graphql",
        "credentials": Credentials(token=None),
        "limits": MessageLimits(max_message_bytes=1000),
        "timeouts": Timeouts(subscribe_seconds=0.2, acknowledge_seconds=5.0),
        "heartbeat": Heartbeat(),
        **settings,
    }
    connection = EventStreamConnection(ConnectionSettings(**given))  # type: ignore[arg-type]  # of the test
    try:
        yield connection
    finally:
        await connection.aclose()


def writes(*blocks: bytes) -> Script:
    """Write these, then wait until the test is over."""

    async def script(peer: Peer, answer: web.StreamResponse) -> None:
        for block in blocks:
            await answer.write(block)
        await peer.going_on.wait()

    return script


def ends_after(*blocks: bytes) -> Script:
    async def script(_peer: Peer, answer: web.StreamResponse) -> None:
        for block in blocks:
            await answer.write(block)

    return script


def begin(connection: EventStreamConnection, id_: str = "1", *, after: str | None = None) -> RecordingRoute:
    route = RecordingRoute()
    extensions: dict[str, object] | None = None if after is None else {"resume": {"after": after}}
    connection.subscribe(Subscribe(id_, "subscription { tick }", {"n": 1}, None, extensions), route)
    return route


# --- one request for each operation ------------------------------------------------------------------


async def test_without_shared_streams_each_operation_has_a_request_of_its_own() -> None:
    async with serving(Peer(writes(b'event: next\ndata: {"data":{"tick":1}}\n\n'))) as peer:
        async with connected(peer) as connection:
            routes = [begin(connection, str(n)) for n in range(3)]
            for route in routes:
                await route.until(2)
                assert route.calls == [("accepted", None), ("deliver", {"data": {"tick": 1}})]
        assert peer.bodies() == [{"query": "subscription { tick }", "variables": {"n": 1}}] * 3
        assert all(headers["Accept"] == "text/event-stream" for headers in peer.headers())
        assert len(peer.bodies("PUT")) == 1


async def test_the_id_of_an_event_is_where_it_resumes_at_a_server_that_knows_nothing_else() -> None:
    script = writes(b'id: c7\nevent: next\ndata: {"data":{"tick":1}}\n\n')
    async with serving(Peer(script)) as peer, connected(peer) as connection:
        route = begin(connection, after="c6")
        await route.until(3)
        assert route.calls[1:] == [("deliver", {"data": {"tick": 1}}), ("promised", "c7")]
        assert peer.headers()[-1]["Last-Event-ID"] == "c6"
        assert "extensions" not in peer.bodies()[-1]


async def test_a_server_of_the_resume_protocol_gives_live_signals() -> None:
    script = writes(b"id: c6\n\n", b'id: c7\nevent: next\ndata: {"data":{"tick":1}}\n\n', b"id: c9\n\n")
    async with serving(Peer(script, resume=True)) as peer, connected(peer) as connection:
        route = begin(connection)
        await route.until(3)
        assert route.calls == [
            ("positioned", "c6"),
            ("deliver", {"data": {"tick": 1}}),
            ("positioned", "c9"),
        ]


async def test_complete_ends_it_and_errors_without_data_before_it_are_its_failure() -> None:
    async with (
        serving(Peer(ends_after(b"event: complete\ndata:\n\n"))) as peer,
        connected(peer) as connection,
    ):
        route = begin(connection)
        await route.until(2)
        assert route.calls[-1] == ("completed", None)
        peer.script = ends_after(
            b'event: next\ndata: {"errors":[{"message":"no"}]}\n\nevent: complete\ndata:\n\n'
        )
        route = begin(connection)
        await route.until(2)
        assert route.calls[-1] == ("failed", ("no",))


async def test_errors_in_the_middle_are_an_event() -> None:
    script = writes(
        b'event: next\ndata: {"errors":[{"message":"no"}]}\n\n',
        b'event: next\ndata: {"data":{"tick":2}}\n\n',
    )
    async with serving(Peer(script)) as peer, connected(peer) as connection:
        route = begin(connection)
        await route.until(3)
        assert route.calls[1:] == [
            ("deliver", {"errors": [{"message": "no"}]}),
            ("deliver", {"data": {"tick": 2}}),
        ]


@pytest.mark.parametrize("data", [b"null", b'{"tick":1}'])
async def test_errors_before_the_data_of_an_event_leave_it_an_event(data: bytes) -> None:
    payload = b'{"errors":[{"message":"no"}],"data":%b}' % data
    script = ends_after(b"event: next\ndata: %b\n\n" % payload, b"event: complete\ndata:\n\n")
    async with serving(Peer(script)) as peer, connected(peer) as connection:
        route = begin(connection)
        await route.until(3)
        assert route.calls[1:] == [("deliver", json.loads(payload)), ("completed", None)]


@pytest.mark.parametrize("content_type", ["application/json", "application/graphql-response+json"])
async def test_a_document_that_is_refused_with_400_is_its_operations_failure(content_type: str) -> None:
    peer = Peer(ends_after(b'{"errors":[{"message":"Syntax Error"}]}'))
    peer.status, peer.content_type = 400, content_type
    async with serving(peer), connected(peer) as connection:
        route = begin(connection)
        await route.until(1)
        assert route.calls == [("failed", ("Syntax Error",))]


async def test_a_stream_with_status_400_tells_why_in_its_events() -> None:
    peer = Peer(ends_after(b'event: next\ndata: {"errors":[{"message":"no"}]}\n\nevent: complete\ndata:\n\n'))
    peer.status = 400
    async with serving(peer), connected(peer) as connection:
        route = begin(connection)
        await route.until(2)
        assert route.calls[-1] == ("failed", ("no",))


async def test_only_what_opens_a_stream_asks_for_events() -> None:
    async with serving(Peer(writes(), shares=True)) as peer, connected(peer) as connection:
        route = begin(connection)
        await route.until(1)
        connection.complete("1", route)
        await until(lambda: peer.asked[-1][0] == "DELETE")
        accepted = [(method, headers["Accept"]) for method, _, headers, _ in peer.asked]
        assert accepted == [
            ("PUT", "text/plain"),
            ("GET", "text/event-stream"),
            ("POST", "application/json"),
            ("DELETE", "text/plain"),
        ]


@pytest.mark.parametrize(
    ("script", "error", "text"),
    [
        (ends_after(b'event: next\ndata: {"data":{"tick":1}}\n\n'), ConnectionFailed, "without `complete`"),
        (writes(b"data: " + b"x" * 2000), ConnectionFailed, "1000 bytes"),
    ],
)
async def test_a_stream_that_cannot_be_read_on_is_lost(
    script: Script, error: type[TransportError], text: str
) -> None:
    async with serving(Peer(script)) as peer, connected(peer) as connection:
        route = begin(connection)
        await until(lambda: route.calls and route.calls[-1][0] == "connection_lost")
        lost = route.calls[-1][1]
        assert isinstance(lost, error)
        assert text in str(lost)


@pytest.mark.parametrize(
    ("status", "content_type", "error"),
    [
        (404, "text/html", HandshakeFailed),
        (400, "text/html", HandshakeFailed),
        (400, "application/json", HandshakeFailed),
        (200, "application/json", HandshakeFailed),
        (503, "text/html", ConnectionFailed),
        (401, "text/html", AuthenticationFailed),
        (302, "text/html", HandshakeFailed),
    ],
)
async def test_an_answer_that_is_no_stream_is_told_as_what_it_is(
    status: int, content_type: str, error: type[TransportError]
) -> None:
    peer = Peer(ends_after(b"{}"))
    peer.status, peer.content_type = status, content_type
    async with serving(peer), connected(peer) as connection:
        route = begin(connection)
        await route.until(1)
        ((call, lost),) = route.calls
        assert call == "connection_lost"
        assert type(lost) is error


async def test_a_live_signal_that_something_holds_back_is_noticed() -> None:
    async with serving(Peer(writes(), resume=True)) as peer, connected(peer) as connection:
        route = begin(connection)
        await route.until(1)
        ((call, lost),) = route.calls
        assert call == "connection_lost"
        assert isinstance(lost, OperationTimeoutError)


@pytest.mark.parametrize("resume", [True, False])
async def test_only_a_server_that_sends_comments_is_lost_when_it_is_silent(
    monkeypatch: pytest.MonkeyPatch, resume: bool
) -> None:
    monkeypatch.setattr(event_stream_reader, "_SILENCE_SECONDS", 0.05)
    async with serving(Peer(writes(b"id: c\n\n"), resume=resume)) as peer, connected(peer) as connection:
        route = begin(connection)
        await route.until(1)
        await asyncio.sleep(0.2)  # the silence itself: where it means nothing, nothing tells of it
        is_lost = route.calls[-1][0] == "connection_lost"
        assert is_lost is resume


async def test_a_refused_token_is_replaced_once() -> None:
    tokens = iter(["old", "new"])
    peer = Peer(writes(b'event: next\ndata: {"data":{"tick":1}}\n\n'))
    peer.refused_tokens = {"Bearer old"}
    async with (
        serving(peer),
        connected(peer, credentials=Credentials(token=lambda: next(tokens))) as connection,
    ):
        route = begin(connection)
        await route.until(2)
        assert route.calls[-1] == ("deliver", {"data": {"tick": 1}})


async def test_an_operation_that_is_held_is_not_read_and_the_others_are() -> None:
    async def script(_peer: Peer, answer: web.StreamResponse) -> None:
        for n in range(1000):
            await answer.write(b'event: next\ndata: {"data":{"tick":%d}}\n\n' % n)
            await asyncio.sleep(0)

    async with serving(Peer(script)) as peer, connected(peer) as connection:
        held = begin(connection, "1")
        await held.until(10)
        connection.hold(held)
        await asyncio.sleep(0.05)  # what was read before the hold has come; nothing tells that no more does
        count = len(held.calls)
        other = begin(connection, "2")
        await other.until(1001)
        assert len(held.calls) == count
        connection.release(held)
        await held.until(1001)


# --- a stream for all ----------------------------------------------------------------------------------


def shared_next(id_: str, tick: int) -> bytes:
    return b'event: next\ndata: {"id":"%b","payload":{"data":{"tick":%d}}}\n\n' % (id_.encode(), tick)


async def test_operations_share_one_stream_and_are_stopped_one_by_one() -> None:
    async def script(peer: Peer, answer: web.StreamResponse) -> None:
        await until(lambda: len(peer.bodies()) == 2)
        await answer.write(
            b"id: c1 1\n\nid: c2 2\n\nid: c3 3\n\n" + shared_next("2", 7) + shared_next("1", 8)
        )
        await peer.going_on.wait()
        await answer.write(shared_next("1", 9) + shared_next("2", 10))
        await peer.over.wait()

    async with serving(Peer(script, shares=True, resume=True)) as peer, connected(peer) as connection:
        first, second = begin(connection, "1", after="c0"), begin(connection, "2")
        await first.until(2)
        await second.until(2)
        assert first.calls == [("positioned", "c1"), ("deliver", {"data": {"tick": 8}})]
        assert second.calls == [("positioned", "c2"), ("deliver", {"data": {"tick": 7}})]
        assert [method for method, *_ in peer.asked] == ["PUT", "GET", "POST", "POST"]
        assert peer.headers("GET")[0][TOKEN] == "ticket"
        assert peer.bodies()[0]["extensions"] == {"operationId": "1", "resume": {"after": "c0"}}
        connection.complete("1", first)
        await until(lambda: peer.asked[-1][0] == "DELETE")
        assert peer.asked[-1][1] == {"operationId": "1"}
        peer.going_on.set()
        await second.until(3)
        assert len(first.calls) == 2


async def test_a_shared_stream_that_is_cut_is_the_loss_of_all_on_it_and_opened_anew() -> None:
    async def script(peer: Peer, answer: web.StreamResponse) -> None:
        count = len(peer.bodies()) + 2
        await until(lambda: len(peer.bodies()) == count)
        await answer.write(b"".join(b"id: c %d\n\n" % n for n in range(5)))

    async with serving(Peer(script, shares=True, resume=True)) as peer, connected(peer) as connection:
        routes = [begin(connection, "0"), begin(connection, "1")]
        for route in routes:
            await route.until(2)
            assert [call for call, _ in route.calls] == ["positioned", "connection_lost"]
        again = [begin(connection, "2"), begin(connection, "3")]
        for route in again:
            await route.until(1)
            assert route.calls[0] == ("positioned", "c")
        assert [method for method, *_ in peer.asked].count("PUT") == 2


async def test_what_is_no_message_of_ours_on_a_shared_stream_ends_nothing() -> None:
    script = writes(
        b"id: nothing\n\n",
        b"event: next\ndata: rubbish\n\n",
        b'event: next\ndata: {"id":"other","payload":{}}\n\n',
        b'event: other\ndata: {"id":"1"}\n\n',
        b"id: c1 1\n\n",
        shared_next("1", 1),
    )
    async with serving(Peer(script, shares=True, resume=True)) as peer, connected(peer) as connection:
        # The stream is written before the operation is begun: it is looked for by its id.
        route = begin(connection, "1")
        await asyncio.sleep(0.3)  # that nothing else comes is no event
        assert all(call in {"positioned", "deliver", "connection_lost"} for call, _ in route.calls)


async def test_a_client_that_closes_leaves_no_request_open() -> None:
    async with serving(Peer(writes(b"id: c1 1\n\n"), shares=True, resume=True)) as peer:
        async with connected(peer) as connection:
            _ = begin(connection, "1")
            await until(lambda: len(peer.bodies()) == 1)
        with pytest.raises(ConnectionFailed, match="closed"):
            begin(connection, "2")


@final
class _CountedOperations(dict[str, Any]):
    """Operations by id that count how often all of them are looked at."""

    looks = 0

    def values(self) -> Any:
        self.looks += 1
        return super().values()


async def test_an_operation_begins_and_is_held_without_a_look_at_the_others() -> None:
    async def script(peer: Peer, answer: web.StreamResponse) -> None:
        await until(lambda: len(peer.bodies()) == 20)
        await answer.write(b"".join(b"id: c %d\n\n" % n for n in range(20)))
        await peer.over.wait()

    async with serving(Peer(script, shares=True, resume=True)) as peer, connected(peer) as connection:
        connection._operations = operations = _CountedOperations()
        routes = [begin(connection, str(n)) for n in range(20)]
        for route in routes:
            await route.until(1)
            connection.hold(route)
        for number, route in enumerate(routes):
            connection.release(route)
            connection.complete(str(number), route)
        assert not operations
        assert not operations.looks
