"""Closing: side by side, whole, and never mistaken for the cancellation of who waits."""

from __future__ import annotations

import asyncio

import pytest

from circuit_breaker_sdk.config import PoolSettings, PoolStrategy
from circuit_breaker_sdk.connections import Credentials, PoolSupervisor, Supervisor
from circuit_breaker_sdk.connections.closing import close_each
from circuit_breaker_sdk.connections.tokens import Tokens
from circuit_breaker_sdk.errors import ConnectionFailed, UsageError
from tests.connections.raw_server import acknowledge, acknowledge_and_stay, settings
from tests.transports.peers import CLOSE, Peer, serve
from tests.waiting import until


async def never() -> None:
    await asyncio.Event().wait()


@pytest.mark.parametrize("turns", range(6))
async def test_who_is_cancelled_while_the_client_closes_ends_cancelled(turns: int) -> None:
    reached = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.accept()
        reached.set()
        await peer.read_to_end()

    async with serve(script) as port:
        owner = Supervisor(settings(port))
        waiting = asyncio.create_task(owner.connection())
        await reached.wait()
        closing = asyncio.create_task(owner.aclose())
        for _ in range(turns):
            await asyncio.sleep(0)
        was_cancelled = waiting.cancel()
        await asyncio.wait((waiting,))
        assert waiting.cancelled() is was_cancelled
        if not was_cancelled:
            assert isinstance(waiting.exception(), UsageError)
        await closing


async def test_a_connection_that_is_lost_while_the_client_closes_is_no_fault(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with serve(acknowledge_and_stay) as port:
        owner = Supervisor(settings(port, credentials=Credentials(token=lambda: "t0ken")))
        connection = await owner.connection()
        connection.drop(ConnectionFailed("cut"))
        await owner.aclose()
        assert not [record for record in caplog.records if record.levelname == "ERROR"]
        assert owner.state == "closed"


async def test_all_connections_of_a_pool_are_closed_side_by_side() -> None:
    """Each peer answers the close only when every other has been told to close as well."""
    told: list[Peer] = []
    all_told = asyncio.Event()

    async def script(peer: Peer) -> None:
        await acknowledge(peer)
        while (frame := await peer.read_frame()).opcode != CLOSE:
            pass
        told.append(peer)
        if len(told) == 8:
            all_told.set()
        await all_told.wait()
        peer.send_frame(CLOSE, frame.payload)

    async with serve(script) as port:
        made: list[Supervisor] = []

        def make() -> Supervisor:
            made.append(Supervisor(settings(port)))
            return made[-1]

        pool = PoolSupervisor(
            PoolSettings(
                size=8,
                strategy=PoolStrategy.LEAST_LOADED,
                subscriptions_per_connection=1,
                idle_seconds=60.0,
                check_seconds=5.0,
                max_round_trip_seconds=2.0,
                max_failures=5,
                cool_down_seconds=30.0,
            ),
            make,
        )
        pool.on_member(Nothing)
        while len(made) < 8:
            pool._add(make())
        connections = [await supervisor.connection() for supervisor in made]
        await pool.aclose()
        assert all_told.is_set()
        assert all(connection._socket is not None for connection in connections)


class Nothing:
    """What a member carries: nothing."""

    subscriptions = events_received = 0

    def __init__(self, _supervisor: Supervisor) -> None:
        pass

    async def hand_over(self, target: object) -> None:
        raise AssertionError("there is nothing")


async def test_an_old_connection_and_the_present_one_are_closed_side_by_side() -> None:
    told: list[Peer] = []
    both_told = asyncio.Event()

    async def script(peer: Peer) -> None:
        await acknowledge(peer)
        while (frame := await peer.read_frame()).opcode != CLOSE:
            pass
        told.append(peer)
        if len(told) == 2:
            both_told.set()
        await both_told.wait()
        peer.send_frame(CLOSE, frame.payload)

    async with serve(script) as port:
        owner = Supervisor(settings(port))
        first = await owner.connection()
        apart = await owner.apart.open()
        assert apart is not first
        await owner.aclose()
        assert both_told.is_set()


async def test_a_token_that_never_comes_ends_with_the_client() -> None:
    tokens = Tokens(never)  # type: ignore[arg-type]  # it gives no token, ever
    waiting = [asyncio.create_task(tokens.ready()) for _ in range(2)]
    await until(lambda: tokens._fetching is not None)
    cancelled = waiting.pop()
    await asyncio.sleep(0)
    cancelled.cancel()
    await tokens.aclose()
    with pytest.raises(UsageError, match="closed while it asked for a token"):
        await waiting[0]
    with pytest.raises(asyncio.CancelledError):
        await cancelled
    with pytest.raises(UsageError, match="closed"):
        await tokens.refresh()


async def test_a_source_that_raises_a_cancellation_of_its_own_has_failed() -> None:
    async def source() -> str:
        raise asyncio.CancelledError

    with pytest.raises(ConnectionFailed, match="the token source raised CancelledError"):
        await Tokens(source).ready()


async def test_a_part_that_does_not_close_in_time_is_cancelled() -> None:
    dropped: list[int] = []

    async def drops() -> None:
        try:
            await never()
        finally:
            dropped.append(1)

    closing = asyncio.create_task(close_each([drops(), drops()], seconds=0))
    for _ in range(100):
        await asyncio.sleep(0)
    assert dropped == [1, 1]
    await closing


async def test_whatever_one_part_does_the_others_are_closed() -> None:
    closed: list[str] = []
    stubborn = asyncio.Event()

    async def raises() -> None:
        raise RuntimeError("broken")

    async def closes() -> None:
        await asyncio.sleep(0)
        closed.append("in peace")

    async def drops() -> None:
        try:
            await never()
        finally:
            closed.append("dropped")

    async def refuses() -> None:
        while not stubborn.is_set():
            try:
                await stubborn.wait()
            except asyncio.CancelledError:
                closed.append("refused")

    with pytest.raises(RuntimeError, match="broken"):
        await close_each([raises(), refuses(), drops(), closes()], seconds=0.01)
    assert sorted(closed) == ["dropped", "in peace", "refused"]
    stubborn.set()
    await asyncio.sleep(0)


async def test_closing_that_is_cancelled_drops_what_is_left_and_is_cancelled() -> None:
    dropped: list[int] = []

    async def drops() -> None:
        try:
            await never()
        finally:
            dropped.append(1)

    closing = asyncio.create_task(close_each([drops(), drops()]))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing
    assert dropped == [1, 1]
