"""Which connection carries a new subscription, when there are more of them, fewer, and which is drained."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, final

import msgspec
import pytest

from circuit_breaker_sdk import Client, PoolStrategy, SubscriptionConnectionPool, UsageError
from circuit_breaker_sdk.config import ErrorRecoveryPolicy, Heartbeat, PoolSettings
from circuit_breaker_sdk.connections import (
    BreakerState,
    ConnectionState,
    ConnectionStateChange,
    PoolSupervisor,
    Supervisor,
)
from circuit_breaker_sdk.testing import ManualClock
from tests.connections.raw_server import acknowledge_and_stay, settings
from tests.transports.peers import serve
from tests.waiting import until


@final
class Load:
    """What one member carries, as the test says."""

    def __init__(self) -> None:
        self.subscriptions = 0
        self.events_received = 0
        self.stays = False

    async def hand_over(self, target: Callable[[], Supervisor | None]) -> None:
        while self.subscriptions and not self.stays and (supervisor := target()) is not None:
            self.subscriptions -= 1
            LOADS[supervisor].subscriptions += 1


LOADS: dict[Supervisor, Load] = {}


@final
class Rig:
    """A pool whose connections are real and whose subscriptions are numbers; its clock is moved by hand."""

    def __init__(self, port: int, pool: PoolSettings, ports: list[int] | None = None) -> None:
        self.clock = ManualClock()
        self._ports = list(ports or ())
        self._port = port
        self.pool = PoolSupervisor(pool, self._make, clock=self.clock)
        self.pool.on_member(self._carry)
        self.order: list[Supervisor] = []

    def _make(self) -> Supervisor:
        port = self._ports.pop(0) if self._ports else self._port
        return Supervisor(settings(port), policy=ErrorRecoveryPolicy(base_delay=1e9, max_delay=1e9))

    def _carry(self, supervisor: Supervisor) -> Load:
        return LOADS.setdefault(supervisor, Load())

    async def subscribe(self) -> Load:
        supervisor = self.pool.choose()
        LOADS[supervisor].subscriptions += 1
        await supervisor.connection()
        return LOADS[supervisor]

    async def check(self, *, after_seconds: float = 1.0) -> None:
        self.clock.advance(after_seconds)
        await self.pool.check()

    @property
    def counts(self) -> list[int]:
        return [connection.subscriptions for connection in self.pool.health()]

    @property
    def states(self) -> list[ConnectionState]:
        return [connection.state for connection in self.pool.health()]

    @property
    def healthy(self) -> list[bool]:
        return [connection.is_healthy for connection in self.pool.health()]


def pool_settings(
    size: int = 3, strategy: PoolStrategy = PoolStrategy.LEAST_LOADED, **more: Any
) -> PoolSettings:
    given: dict[str, Any] = {
        "subscriptions_per_connection": 1,
        "idle_seconds": 60.0,
        "check_seconds": 1e6,  # the tests check
        "max_round_trip_seconds": 2.0,
        "max_failures": 0,
        "cool_down_seconds": 30.0,
    }
    return PoolSettings(size=size, strategy=strategy, **{**given, **more})


@asynccontextmanager
async def rig(ports: list[int] | None = None, **given: Any) -> AsyncIterator[Rig]:
    async with serve(acknowledge_and_stay) as port:
        under_test = Rig(port, pool_settings(**given), ports)
        try:
            yield under_test
        finally:
            await under_test.pool.aclose()
            LOADS.clear()
    assert under_test.pool.state is ConnectionState.CLOSED


# What it is given ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("size", 0),
        ("size", True),
        ("size", 2.5),
        ("size", "4"),
        ("strategy", "least_loaded_of_all"),
        ("strategy", None),
        ("subscriptions_per_connection", 0),
        ("idle_seconds", 0),
        ("check_seconds", -1),
        ("max_round_trip_seconds", float("nan")),
        ("max_failures", -1),
        ("max_failures", 0.5),
        ("cool_down_seconds", None),
    ],
)
def test_what_cannot_be_used_is_a_usage_error_that_names_it(name: str, wrong: Any) -> None:  # the point
    with pytest.raises(UsageError, match=name):
        SubscriptionConnectionPool(**{name: wrong})


def test_a_pool_serves_one_client_and_says_what_it_is() -> None:
    pool = SubscriptionConnectionPool(2, PoolStrategy.ROUND_ROBIN)
    assert (pool.size, pool.strategy, pool.state, pool.health()) == (2, "round_robin", "idle", ())
    client = Client.builder().base_url("ws://localhost").pool(pool).build()
    assert [connection.state for connection in pool.health()] == [ConnectionState.IDLE]
    assert (client.state, client.circuit_breaker) == (ConnectionState.IDLE, BreakerState.CLOSED)
    with pytest.raises(UsageError, match="one client"):
        Client("ws://localhost", pool=pool)
    with pytest.raises(UsageError, match="pool must be of type"):
        Client("ws://localhost", pool=4)  # type: ignore[arg-type]  # what is refused
    assert repr(pool) == "<SubscriptionConnectionPool round_robin of 2, idle>"


async def test_a_client_that_is_closed_unused_leaves_a_pool_that_is_closed() -> None:
    pool = SubscriptionConnectionPool()
    async with Client("ws://localhost", pool=pool) as client:
        told: list[ConnectionStateChange] = []
        client.on_connection_state(told.append)
    assert [change.now for change in told] == [pool.state] == [ConnectionState.CLOSED]
    with pytest.raises(UsageError, match="closed"):
        await client.subscriptions.resource_updates().subscribe()


# Growing and choosing --------------------------------------------------------------------------------------


async def test_another_connection_is_opened_when_each_open_one_is_full_and_never_more_than_size() -> None:
    async with rig(size=2, subscriptions_per_connection=2) as r:
        grown = []
        for _ in range(6):
            await r.subscribe()
            grown.append(r.counts)
        assert grown == [[1], [2], [2, 1], [2, 2], [3, 2], [3, 3]]


async def test_those_that_wait_for_their_connection_count_too() -> None:
    async with rig(size=2, subscriptions_per_connection=2) as r:
        await asyncio.gather(*(r.subscribe() for _ in range(4)))
        assert r.counts == [2, 2]


async def test_round_robin_takes_each_in_turn_whatever_it_carries() -> None:
    async with rig(strategy=PoolStrategy.ROUND_ROBIN) as r:
        loads = [await r.subscribe() for _ in range(3)]
        loads[0].subscriptions = 50
        for _ in range(6):
            await r.subscribe()
        assert r.counts == [52, 3, 3]


async def test_the_least_loaded_is_that_with_the_fewest_events_a_second() -> None:
    async with rig() as r:
        loads = [await r.subscribe() for _ in range(3)]
        for load, events in zip(loads, (1000, 100, 500), strict=True):
            load.events_received = events
        loads[1].subscriptions = 9
        await r.check(after_seconds=10.0)
        assert [c.events_per_second for c in r.pool.health()] == [100.0, 10.0, 50.0]
        assert await r.subscribe() is loads[1]


async def test_a_burst_between_two_checks_does_not_go_where_the_rate_was_lowest() -> None:
    async with rig(size=2) as r:
        loads = [await r.subscribe(), await r.subscribe()]
        loads[0].events_received, loads[1].events_received = 110, 90
        await r.check()
        for _ in range(100):
            await r.subscribe()
        assert sorted(r.counts) == [51, 51]


async def test_one_that_cannot_connect_carries_nothing_new_for_a_while_and_another_takes_over() -> None:
    async with serve(acknowledge_and_stay) as port, rig([port, 1], size=2) as r:
        first = await r.subscribe()
        failing = r.pool.choose()
        assert LOADS[failing] is not first
        assert LOADS[r.pool.instead_of(failing) or failing] is first
        assert r.healthy == [True, False]
        assert await r.subscribe() is first
        await r.check(after_seconds=31.0)
        assert r.healthy == [True, True]
        # With nobody else it is the caller's.
        assert r.pool.instead_of(r.pool.first) is None


# Shrinking -------------------------------------------------------------------------------------------------


async def test_what_carries_nothing_for_long_enough_is_closed_but_for_the_last() -> None:
    async with rig() as r:
        loads = [await r.subscribe() for _ in range(3)]
        for load in loads:
            load.subscriptions = 0
        await r.check()
        await r.check(after_seconds=59.0)
        assert r.states == ["connected"] * 3
        await r.check()
        assert r.states == ["connected", "idle", "idle"]
        assert r.pool.state is ConnectionState.CONNECTED
        await r.check(after_seconds=1000.0)
        assert r.states == ["connected", "idle", "idle"]
        # They are opened again when they are needed, before others are made.
        for _ in range(3):
            await r.subscribe()
        assert r.counts == [1, 1, 1]
        assert r.pool.counters.reconnection_attempts == 0, "nothing was lost"


async def test_one_that_was_used_meanwhile_is_not_idle() -> None:
    async with rig(size=2) as r:
        loads = [await r.subscribe(), await r.subscribe()]
        loads[1].subscriptions = 0
        await r.check()
        assert await r.subscribe() is loads[1]
        loads[1].subscriptions = 0
        await r.check(after_seconds=60.0)
        assert r.states == ["connected", "connected"]


# Health ----------------------------------------------------------------------------------------------------


async def test_one_that_was_lost_too_often_is_drained_and_comes_back_after_its_cool_down() -> None:
    async with rig(size=2) as r:
        await r.subscribe()
        await r.subscribe()
        r.pool.first.counters.failures += 1
        await r.check()
        assert (r.counts, r.states, r.healthy) == ([0, 2], ["idle", "connected"], [False, True])
        await r.subscribe()
        assert r.counts == [0, 3], "it carries nothing new, and a third one there may not be"
        await r.check(after_seconds=30.0)
        assert r.healthy == [True, True]
        await r.subscribe()
        assert r.counts == [1, 3]


async def test_where_no_other_is_healthy_nothing_is_drained() -> None:
    async with rig(size=2) as r:
        await r.subscribe()
        await r.subscribe()
        for supervisor in LOADS:
            supervisor.counters.failures += 1
        await r.check()
        assert (r.counts, r.states, r.healthy) == ([1, 1], ["connected"] * 2, [False, False])
        await r.check()
        assert r.healthy == [True, True], "that was the last window"


async def test_one_that_keeps_its_subscriptions_keeps_its_connection() -> None:
    async with rig(size=2) as r:
        staying = await r.subscribe()
        await r.subscribe()
        staying.stays = True
        r.pool.first.counters.failures += 1
        await r.check()
        assert (r.counts, r.states, r.healthy) == ([1, 1], ["connected"] * 2, [False, True])
        staying.subscriptions = 0
        await r.check()
        assert r.states == ["idle", "connected"], "once it has none it is closed, and not only after a while"


async def test_one_that_cools_down_is_not_opened_while_another_can_be_had_however_it_is() -> None:
    async with rig(size=2) as r:
        await r.subscribe()
        await r.subscribe()
        r.pool.first.counters.failures += 1
        await r.check()
        assert r.counts == [0, 2]
        next(each for each in LOADS if each is not r.pool.first).counters.failures += 1
        await r.check()
        assert r.healthy == [False, False]
        await r.subscribe()
        assert (r.counts, r.states) == ([0, 3], ["idle", "connected"])


async def test_one_that_stays_away_from_check_to_check_gives_what_it_has_to_the_others() -> None:
    async with rig(size=2, max_failures=1000) as r:
        await r.subscribe()
        await r.subscribe()
        connection = r.pool.first.present
        assert connection is not None
        await connection.aclose()  # closed by us: nobody asks for the next one
        await r.check()
        assert r.counts == [1, 1]
        await r.check()
        assert r.counts == [0, 2]


async def test_a_slow_round_trip_is_noticed_by_its_pong_or_by_its_absence() -> None:
    async with serve(acknowledge_and_stay) as port:  # it answers no ping
        beating = Heartbeat(interval_seconds=0.01, timeout_seconds=1e6)
        slow = Supervisor(msgspec.structs.replace(settings(port), heartbeat=beating))
        pool = PoolSupervisor(pool_settings(max_round_trip_seconds=0.05), lambda: slow)
        load = Load()
        pool.on_member(lambda _supervisor: load)
        load.subscriptions = 1
        await pool.choose().connection()
        await until(lambda: (pool.health()[0].round_trip_seconds or 0.0) > 0.05)
        await pool.check()
        assert not pool.health()[0].is_healthy
        await pool.aclose()


# All of them together --------------------------------------------------------------------------------------


async def test_the_pool_is_connected_while_any_is_and_tells_only_its_own_changes() -> None:
    async with rig(size=2) as r:
        told: list[tuple[str, str]] = []
        r.pool.on_state(lambda change: told.append((change.before.value, change.now.value)))

        def raises(_change: ConnectionStateChange) -> None:
            raise RuntimeError("a listener may")

        r.pool.on_state(raises)
        await r.subscribe()
        await r.subscribe()
        await r.pool.first.disconnect()
        assert (r.pool.state, r.pool.breaker_state) == ("connected", BreakerState.CLOSED)
        await r.pool.aclose()
        await r.pool.aclose()
        with pytest.raises(UsageError, match="closed"):
            r.pool.choose()
    assert told == [("idle", "connecting"), ("connecting", "connected"), ("connected", "closed")]
