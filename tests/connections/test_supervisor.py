"""Who opens the connection, how often, where, and what becomes of it."""

from __future__ import annotations

import asyncio
import gc
import struct
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from itertools import pairwise, product
from typing import Any

import pytest

from circuit_breaker_sdk.config import CircuitBreakerPolicy, ErrorRecoveryPolicy
from circuit_breaker_sdk.connections import (
    BreakerState,
    ConnectionState,
    ConnectionStateChange,
    Credentials,
    Supervisor,
)
from circuit_breaker_sdk.connections.connection_state import TRANSITIONS, Trigger
from circuit_breaker_sdk.errors import (
    AuthenticationFailed,
    ConnectionFailed,
    HandshakeFailed,
    UsageError,
)
from tests.connections.raw_server import (
    RecordingRoute,
    Script,
    acknowledge,
    acknowledge_and_stay,
    read_message,
    settings,
    stay,
    subscribe,
)
from tests.transports.peers import CLOSE, Peer, handshake_answer, serve
from tests.waiting import until

NOT_FOUND = "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"


@asynccontextmanager
async def supervisor(
    script: Script, *, path: str = "/graphql", credentials: Credentials | None = None
) -> AsyncIterator[Supervisor]:
    async with serve(script) as port:
        owner = Supervisor(settings(port, path=path, credentials=credentials))
        try:
            yield owner
        finally:
            await owner.aclose()
    assert owner.state is ConnectionState.CLOSED


def speaking_at(paths: Iterable[str], tried: list[str], elsewhere: str = NOT_FOUND) -> Script:
    """Speak GraphQL at these paths and answer HTTP elsewhere; note which paths were tried."""

    async def script(peer: Peer) -> None:
        head = await peer.read_head()
        path = head.split(" ")[1]
        tried.append(path)
        if path not in paths:
            peer.send(elsewhere.encode())
            await peer.read_to_end()
            return
        peer.send(handshake_answer(head))
        await read_message(peer)
        peer.send_frame(1, b'{"type":"connection_ack"}')
        await stay(peer)

    return script


# Opening ---------------------------------------------------------------------------------------------------


async def test_it_connects_on_first_use_and_once_for_all_who_wait() -> None:
    opened: list[Peer] = []
    go = asyncio.Event()

    async def script(peer: Peer) -> None:
        opened.append(peer)
        await go.wait()
        await acknowledge_and_stay(peer)

    async with supervisor(script) as owner:
        states = [owner.state]
        waiting = [asyncio.create_task(owner.connection()) for _ in range(5)]
        await until(lambda: owner.state is not ConnectionState.IDLE)
        states.append(owner.state)
        waiting[0].cancel()
        go.set()
        with pytest.raises(asyncio.CancelledError):
            await waiting[0]
        connections = {await task for task in waiting[1:]}
        connections.add(await owner.connection())
        states.append(owner.state)
    assert states == ["idle", "connecting", "connected"]
    assert len(connections) == len(opened) == 1


async def test_a_lost_connection_is_tried_again_after_an_attempt_that_failed() -> None:
    opened: list[Peer] = []

    async def script(peer: Peer) -> None:
        opened.append(peer)
        match len(opened):
            case 1:
                await acknowledge(peer)
            case 2:
                pass
            case _:
                await acknowledge_and_stay(peer)

    async def failure(owner: Supervisor) -> ConnectionFailed | None:
        try:
            await owner.connection()
        except ConnectionFailed as error:
            return error
        return None

    async with supervisor(script) as owner:
        first = await owner.connection()
        await until(lambda: not first.is_usable)
        assert await failure(owner) is None
    assert len(opened) == 3


async def test_a_failure_that_nobody_waits_for_any_more_is_nobodys_error() -> None:
    told: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: told.append(context))
    go = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.accept()
        await go.wait()
        peer.vanish()

    async with supervisor(script) as owner:
        waiting = asyncio.create_task(owner.connection())
        await until(lambda: owner.state is ConnectionState.CONNECTING)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        go.set()
        await until(lambda: owner.state is ConnectionState.IDLE)
        await asyncio.sleep(0)
        gc.collect()
    assert not told


async def test_a_failure_is_told_to_all_who_wait_and_the_next_call_tries_again() -> None:
    codes = iter([4500, None])

    async def script(peer: Peer) -> None:
        code = next(codes)
        if code is None:
            await acknowledge_and_stay(peer)
            return
        await peer.accept()
        await read_message(peer)
        peer.send_frame(CLOSE, code.to_bytes(2))
        await stay(peer)

    async with supervisor(script) as owner:
        results = await asyncio.gather(owner.connection(), owner.connection(), return_exceptions=True)
        assert isinstance(results[0], ConnectionFailed)
        assert results[0] is results[1]
        assert owner.state is ConnectionState.IDLE
        assert (await owner.connection()).is_usable
        assert (owner.counters.failures, owner.counters.reconnection_attempts) == (1, 0)


async def test_connection_parameters_without_a_json_form_are_a_usage_error_and_drop_the_socket() -> None:
    dropped = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.accept()
        await peer.read_to_end()
        dropped.set()

    async with supervisor(script, credentials=Credentials(connection_params={"x": object()})) as owner:
        with pytest.raises(UsageError):
            await owner.connection()
        await dropped.wait()
        assert owner.state is ConnectionState.IDLE


# Where -----------------------------------------------------------------------------------------------------


async def test_ws_is_tried_where_graphql_answers_http_only_and_is_remembered() -> None:
    tried: list[str] = []
    async with supervisor(speaking_at({"/api/ws?x=1"}, tried), path="/api/graphql?x=1") as owner:
        first = await owner.connection()
        assert first.url.endswith("/api/ws")
        await first.aclose()
        second = await owner.connection()
        assert second is not first
    assert tried == ["/api/graphql?x=1", "/api/ws?x=1", "/api/ws?x=1"]


async def test_where_neither_speaks_the_error_is_about_the_url_that_was_given() -> None:
    tried: list[str] = []
    async with supervisor(speaking_at((), tried)) as owner:
        for _ in range(2):
            with pytest.raises(HandshakeFailed, match="404") as caught:
                await owner.connection()
            assert str(caught.value.url).endswith("/graphql")
    assert tried == ["/graphql", "/ws"] * 2


@pytest.mark.parametrize(
    ("path", "status", "error"),
    [
        ("/other", "404 Not Found", HandshakeFailed),
        ("/graphql", "501 Not Implemented", HandshakeFailed),
        ("/graphql", "503 Service Unavailable", ConnectionFailed),
        ("/graphql", "401 Unauthorized", AuthenticationFailed),
    ],
)
async def test_ws_is_not_tried_where_the_path_is_not_to_blame(
    path: str, status: str, error: type[Exception]
) -> None:
    tried: list[str] = []
    answer = f"HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n"
    async with supervisor(speaking_at({"/ws"}, tried, answer), path=path) as owner:
        with pytest.raises(error):
            await owner.connection()
    assert tried == [path]


async def test_a_wrong_subprotocol_is_reported_as_it_was_answered_at_the_url_that_was_given() -> None:
    async def script(peer: Peer) -> None:
        await peer.accept(subprotocol="soap")
        await peer.read_to_end()

    offered = "offered 'graphql-transport-ws', 'graphql-ws', answered 'soap'"
    async with supervisor(script) as owner:
        with pytest.raises(HandshakeFailed, match=offered) as caught:
            await owner.connection()
        assert str(caught.value.url).endswith("/graphql")


# Again -----------------------------------------------------------------------------------------------------


async def test_of_several_urls_the_next_is_tried_and_the_one_that_serves_is_kept() -> None:
    async with serve(acknowledge_and_stay) as port:
        nobody, somebody = settings(1).url, settings(port).url
        owner = Supervisor(settings(1), urls=[nobody, somebody])
        connection = await owner.connection()
        assert connection.url == somebody
        await connection.aclose()
        assert (await owner.connection()).url == somebody
        assert owner.counters.failures == 1
        await owner.aclose()


async def test_refused_credentials_are_not_shown_to_the_next_url() -> None:
    tried: list[str] = []
    refusing = speaking_at((), tried, "HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n")
    async with serve(refusing) as port:
        owner = Supervisor(settings(port), urls=[settings(port).url, settings(port, path="/other").url])
        with pytest.raises(AuthenticationFailed):
            await owner.connection()
        await owner.aclose()
    assert tried == ["/graphql"]


async def test_after_a_loss_whoever_asks_waits_until_it_stands_and_every_change_is_told() -> None:
    answers = iter([True, False, False, True])
    changes: list[ConnectionStateChange] = []

    async def script(peer: Peer) -> None:
        if not next(answers):
            peer.vanish()
            return
        await acknowledge(peer)
        if (await peer.read_frame()).opcode != CLOSE:
            peer.vanish()

    async with serve(script) as port:
        owner = Supervisor(settings(port), policy=ErrorRecoveryPolicy(base_delay=0.01))
        owner.on_state(changes.append)
        owner.on_state(lambda _change: 1 / 0)
        first, route = await owner.connection(), RecordingRoute()
        first.subscribe(subscribe("1"), route)
        await route.until(1)
        again = await asyncio.gather(owner.connection(), owner.connection())
        assert again[0] is again[1]
        assert (owner.counters.failures, owner.counters.reconnection_attempts) == (3, 3)
        await owner.aclose()
    assert " ".join(change.now for change in changes) == (
        "connecting connected idle reconnecting connecting reconnecting connecting reconnecting connecting "
        "connected closed"
    )
    waits = [change for change in changes if change.now is ConnectionState.RECONNECTING]
    assert [change.attempt for change in waits] == [0, 1, 2]
    assert waits[0].retry_in_seconds == 0.0
    assert all(isinstance(change.reason, ConnectionFailed) for change in waits)
    assert all(later.before is earlier.now for earlier, later in pairwise(changes))


@pytest.mark.parametrize(("paths", "waited"), [(["/a", "/b"], 0.0), (["/a"], 0.3)])
async def test_a_server_that_stops_is_left_for_the_next_one_and_one_alone_says_when_to_come_back(
    paths: list[str], waited: float
) -> None:
    opened: list[str] = []
    changes: list[ConnectionStateChange] = []

    async def script(peer: Peer) -> None:
        head = await peer.read_head()
        opened.append(head.split(" ")[1])
        peer.send(handshake_answer(head))
        await read_message(peer)
        peer.send_frame(1, b'{"type":"connection_ack"}')
        if len(opened) == 1:
            peer.send_frame(CLOSE, struct.pack("!H", 1012) + b"the server is shutting down; retry-after=0.3")
        await stay(peer)

    async with serve(script) as port:
        owner = Supervisor(settings(port), urls=[settings(port, path=path).url for path in paths])
        first = await owner.connection()
        await until(lambda: not first.is_usable)
        owner.on_state(changes.append)
        await owner.connection()
        await owner.aclose()
    assert opened == ["/a", paths[-1]]
    waits = [change.retry_in_seconds for change in changes if change.now is ConnectionState.RECONNECTING]
    assert waits == [waited]


async def test_nothing_is_tried_any_more_once_nobody_waits_for_it() -> None:
    attempts: list[Peer] = []

    async def script(peer: Peer) -> None:
        attempts.append(peer)
        if len(attempts) == 1:
            await acknowledge(peer)
            if (await peer.read_frame()).opcode != CLOSE:
                peer.vanish()
        else:
            peer.vanish()

    async with serve(script) as port:
        owner = Supervisor(settings(port), policy=ErrorRecoveryPolicy(base_delay=1e9, max_delay=1e9))
        first, route = await owner.connection(), RecordingRoute()
        first.subscribe(subscribe("1"), route)
        await route.until(1)
        waiting = asyncio.create_task(owner.connection())
        await until(lambda: len(attempts) == 2 and owner.state is ConnectionState.RECONNECTING)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert owner.state is ConnectionState.IDLE
        await owner.aclose()


async def test_an_open_breaker_keeps_attempts_away_until_its_time_is_over() -> None:
    waits: list[float | None] = []

    async with serve(acknowledge_and_stay) as port:
        breaker = CircuitBreakerPolicy(failure_threshold=2, open_seconds=0.05)
        owner = Supervisor(settings(1), urls=[settings(1).url], breaker=breaker)
        owner.on_state(lambda change: waits.append(change.retry_in_seconds))
        for _ in range(2):
            with pytest.raises(ConnectionFailed):
                await owner.connection()
        states = [owner.breaker_state]
        owner._endpoints.current.url = settings(port).url
        assert (await owner.connection()).is_usable
        states.append(owner.breaker_state)
        owner.proven()
        states.append(owner.breaker_state)
        await owner.aclose()
    assert states == [BreakerState.OPEN, BreakerState.HALF_OPEN, BreakerState.CLOSED]
    assert [wait for wait in waits if wait] != []


def test_a_second_event_loop_is_a_usage_error() -> None:
    owner = Supervisor(settings(1))
    for error in (ConnectionFailed, UsageError):
        with pytest.raises(error):
            asyncio.run(owner.connection())


# The end ---------------------------------------------------------------------------------------------------


async def test_closing_while_it_connects_ends_the_wait_of_every_caller() -> None:
    connecting, dropped = asyncio.Event(), asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.accept()
        await read_message(peer)
        connecting.set()
        await peer.read_to_end()
        dropped.set()

    async with supervisor(script) as owner:
        waiting = [asyncio.create_task(owner.connection()) for _ in range(2)]
        await connecting.wait()
        await owner.aclose()
        for task in waiting:
            with pytest.raises(UsageError, match="closed while it connected"):
                await task
        await dropped.wait()
        with pytest.raises(UsageError, match="make a new one"):
            await owner.connection()


async def test_whoever_closes_can_be_cancelled_himself() -> None:
    connecting = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.accept()
        await read_message(peer)
        connecting.set()
        await peer.read_to_end()

    async with supervisor(script) as owner:
        waiting = asyncio.create_task(owner.connection())
        await connecting.wait()
        closing = asyncio.create_task(owner.aclose())
        await asyncio.sleep(0)
        closing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await closing
        with pytest.raises(UsageError):
            await waiting


async def test_a_lost_connection_is_dropped_and_the_next_call_opens_another() -> None:
    async def script(peer: Peer) -> None:
        await acknowledge(peer)
        if (await peer.read_frame()).opcode != CLOSE:
            peer.vanish()

    async with supervisor(script) as owner:
        first, route = await owner.connection(), RecordingRoute()
        first.subscribe(subscribe("1"), route)
        await route.until(1)
        assert owner.state is ConnectionState.IDLE
        second = await owner.connection()
        assert (second is first, second.is_usable) == (False, True)
        assert (owner.counters.failures, owner.counters.reconnection_attempts) == (1, 1)


async def test_a_connection_that_is_closing_is_not_handed_out_and_is_awaited_at_the_end() -> None:
    async with supervisor(acknowledge_and_stay) as owner:
        first = await owner.connection()
        assert first._socket is not None
        first._socket.close(1000)
        second = await owner.connection()
        assert (second is first, second.is_usable) == (False, True)


async def test_closing_twice_is_fine() -> None:
    async with supervisor(acknowledge_and_stay) as owner:
        connection = await owner.connection()
        await owner.aclose()
        await owner.aclose()
        assert not connection.is_usable


def test_only_these_pairs_of_state_and_trigger_exist() -> None:
    state, trigger = ConnectionState, Trigger
    missing = set(product(state, trigger)) - set(TRANSITIONS)
    assert missing == {
        (state.IDLE, trigger.OPENED),
        (state.CONNECTED, trigger.WAIT),
        (state.RECONNECTING, trigger.WAIT),
        (state.RECONNECTING, trigger.OPENED),
        (state.CLOSED, trigger.WAIT),
        (state.IDLE, trigger.LOST),
        (state.CONNECTING, trigger.OPEN),
        (state.CONNECTED, trigger.OPEN),
        (state.CONNECTED, trigger.OPENED),
        (state.CLOSED, trigger.OPEN),
        (state.CLOSED, trigger.OPENED),
    }
    assert {after for (before, _), after in TRANSITIONS.items() if before is state.CLOSED} == {state.CLOSED}
