"""Subscriptions spread over several connections, against the real server and through faulty networks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from circuit_breaker_sdk import (
    BufferLimits,
    CircuitBreakerError,
    CircuitBreakerPolicy,
    Client,
    ConnectionHealth,
    ConnectionState,
    Continuity,
    ErrorRecoveryPolicy,
    Heartbeat,
    SubscriptionConnectionPool,
    SubscriptionState,
)
from circuit_breaker_sdk.streams import ResourceUpdateSubscription
from circuit_breaker_sdk.testing import FaultProxy
from circuit_breaker_server import Server, ServerSettings
from tests.connections.raw_server import acknowledge, send_message
from tests.integration import token_world as rotation
from tests.integration.policies import NEVER_OPEN, SOON
from tests.integration.workflows import create_review_workflow, number_of, numbers
from tests.transports.peers import CLOSE, Peer, serve
from tests.waiting import until

OFTEN = Heartbeat(interval_seconds=0.02, timeout_seconds=60.0)


class World(NamedTuple):
    """A server, two ways to it, and a client that prefers the first."""

    client: Client
    pool: SubscriptionConnectionPool
    first: FaultProxy
    second: FaultProxy
    direct: Client
    workflow: str

    async def subscribe(self, buffer: BufferLimits | None = None) -> ResourceUpdateSubscription:
        builder = self.client.workflows.subscribe_resource_updates(workflow_id=self.workflow)
        return await (builder if buffer is None else builder.buffer(buffer)).subscribe()

    async def one_each(self, buffer: BufferLimits | None = None) -> list[ResourceUpdateSubscription]:
        """Subscribe once by the first way, and once by the second."""
        one = await self.subscribe(buffer)
        self.first.refuses = True
        other = await self.subscribe()
        self.first.refuses = False
        assert (self.first.connections, self.second.connections) == (1, 1)
        return [one, other]

    async def publish(self, start: int, stop: int) -> None:
        for n in range(start, stop):
            await self.direct.workflows.create_resource(workflow_id=self.workflow, data={"n": n})

    @property
    def counts(self) -> list[int]:
        return counts(self.pool.health())


def counts(connections: tuple[ConnectionHealth, ...]) -> list[int]:
    return [connection.subscriptions for connection in connections]


@asynccontextmanager
async def world(
    tmp_path: Path,
    *,
    size: int = 2,
    recovery: ErrorRecoveryPolicy = SOON,
    circuit_breaker: CircuitBreakerPolicy = NEVER_OPEN,
    **pool: Any,
) -> AsyncIterator[World]:
    settings = {"subscriptions_per_connection": 1, "check_seconds": 0.02, "max_failures": 1_000, **pool}
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(Server(ServerSettings(port=0, data_dir=tmp_path)))
        first = await stack.enter_async_context(FaultProxy("127.0.0.1", server.port))
        second = await stack.enter_async_context(FaultProxy("127.0.0.1", server.port))
        connections = SubscriptionConnectionPool(size, **settings)
        client = Client(
            [f"ws://127.0.0.1:{proxy.port}/graphql" for proxy in (first, second)],
            pool=connections,
            recovery=recovery,
            circuit_breaker=circuit_breaker,
            heartbeat=OFTEN,
        )
        await stack.enter_async_context(client)
        direct = await stack.enter_async_context(Client(server.url))
        workflow = (await create_review_workflow(direct)).id
        yield World(client, connections, first, second, direct, workflow)


async def test_subscriptions_are_spread_and_each_receives_everything_in_order(tmp_path: Path) -> None:
    async with world(tmp_path, size=3) as w:
        all_seen: list[list[object]] = [[] for _ in range(7)]
        for seen in all_seen:
            (await w.subscribe()).on_update(numbers(seen))
        assert sorted(w.counts) == [2, 2, 3]
        assert w.first.connections == 3
        await w.publish(0, 20)
        await until(lambda: all(len(seen) == 20 for seen in all_seen))
        assert all(seen == list(range(20)) for seen in all_seen)
        assert w.client.state is w.pool.state is ConnectionState.CONNECTED
        metrics = w.client.metrics
        assert (metrics.active_subscriptions, metrics.messages_received) == (7, 140)
        assert (metrics.connection_failures, metrics.reconnection_attempts) == (0, 0)
        await until(lambda: w.client.metrics.round_trip_seconds is not None)


async def test_a_slow_connection_is_drained_to_the_others_and_no_event_is_lost_or_doubled(
    tmp_path: Path,
) -> None:
    async with world(tmp_path, max_round_trip_seconds=1.0, cool_down_seconds=1e6) as w:
        both = await w.one_each()
        all_seen: list[list[object]] = [[], []]
        for updates, seen in zip(both, all_seen, strict=True):
            updates.on_update(numbers(seen))
        await w.publish(0, 10)
        w.first.delay_seconds = 1.5
        n = 10
        while w.counts != [0, 2]:
            await w.publish(n, n + 1)
            n += 1
        await w.publish(n, n + 10)
        await until(lambda: all(len(seen) >= n + 10 for seen in all_seen))
        assert all(seen == list(range(n + 10)) for seen in all_seen)
        assert {updates.continuity for updates in both} == {Continuity.OK}
        assert w.client.metrics.connection_failures == 1, "only the attempt that was refused"
        assert w.client.metrics.messages_received == 2 * (n + 10), "each where it came"
        await until(lambda: w.pool.health()[0].state is ConnectionState.IDLE)
        assert [connection.is_healthy for connection in w.pool.health()] == [False, True]
        both.append(await w.subscribe())
        assert w.counts == [0, 3], "the slow one carries nothing new"
        await both[0].unsubscribe()
        assert w.counts == [0, 2], "it had become the other's"


async def test_one_that_waits_for_its_consumer_goes_over_too(tmp_path: Path) -> None:
    async with world(tmp_path, max_round_trip_seconds=1.0, cool_down_seconds=1e6) as w:
        waiting, _ = await w.one_each(BufferLimits(max_events=4))
        await w.publish(0, 20)
        await until(lambda: waiting.stats().pauses)
        w.first.delay_seconds = 1.5
        await until(lambda: w.counts == [0, 2])
        assert [number_of(await anext(waiting)) for _ in range(20)] == list(range(20))
        assert waiting.continuity is Continuity.OK


async def test_a_connection_that_is_lost_does_not_disturb_what_is_on_the_others(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        lost, undisturbed = await w.one_each()
        all_seen: list[list[object]] = [[], []]
        told: list[list[CircuitBreakerError]] = [[], []]
        for updates, seen, errors in zip((lost, undisturbed), all_seen, told, strict=True):
            updates.on_update(numbers(seen)).on_error(errors.append)
        changes: list[ConnectionState] = []
        w.client.on_connection_state(lambda change: changes.append(change.now))
        id_ = undisturbed.id
        for n in range(40):
            await w.publish(n, n + 1)
            if n % 20 == 10:
                w.first.cut(after_bytes=n)
        await until(lambda: all(len(seen) >= 40 for seen in all_seen))
        assert all(seen == list(range(40)) for seen in all_seen)
        assert told[0]
        assert not told[1]
        assert (undisturbed.id, undisturbed.state) == (id_, SubscriptionState.LIVE)
        assert changes == [], "the pool was connected all the time"


async def test_what_cannot_connect_again_gives_its_subscriptions_to_the_others(tmp_path: Path) -> None:
    async with world(tmp_path, recovery=ErrorRecoveryPolicy(base_delay=1e6, max_delay=1e6)) as w:
        lost, _ = await w.one_each()
        w.first.refuses = w.second.refuses = True
        w.first.cut()
        await w.publish(0, 3)
        await until(lambda: w.counts == [0, 2])
        assert [number_of(await anext(lost)) for _ in range(3)] == [0, 1, 2]
        assert (lost.continuity, lost.state) == (Continuity.OK, SubscriptionState.LIVE)
        assert w.client.state is ConnectionState.CONNECTED


async def test_a_new_one_does_not_wait_with_those_whose_connection_is_away(tmp_path: Path) -> None:
    slowly = ErrorRecoveryPolicy(base_delay=1e6, max_delay=1e6)
    async with world(tmp_path, recovery=slowly, check_seconds=1e6) as w:
        lost, other = await w.one_each()
        w.first.refuses = w.second.refuses = True
        w.first.cut()
        await until(lambda: w.pool.health()[0].state is ConnectionState.RECONNECTING)
        new = await w.subscribe()
        assert w.counts == [1, 2]
        assert lost.state is SubscriptionState.RECONNECTING
        assert new.state is other.state is SubscriptionState.LIVE


async def test_when_all_are_lost_all_come_back_and_miss_nothing(tmp_path: Path) -> None:
    async with world(tmp_path, size=3) as w:
        all_seen: list[list[object]] = [[] for _ in range(6)]
        for seen in all_seen:
            (await w.subscribe()).on_update(numbers(seen))
        for n in range(60):
            await w.publish(n, n + 1)
            if n % 20 == 10:
                w.first.cut()
                w.second.cut()
        await until(lambda: all(len(seen) >= 60 for seen in all_seen))
        assert all(seen == list(range(60)) for seen in all_seen)
        assert w.client.metrics.reconnection_attempts >= 3
        assert w.client.metrics.messages_received == 360


async def test_connections_that_are_not_needed_any_more_are_closed(tmp_path: Path) -> None:
    async with world(tmp_path, size=3, idle_seconds=0.02) as w:
        updates = [await w.subscribe() for _ in range(3)]
        for each in updates:
            await each.unsubscribe()
        await until(lambda: w.first.connections == 1)
        again = await w.subscribe()
        await w.publish(0, 1)
        assert number_of(await anext(again)) == 0


async def test_where_a_connection_more_is_refused_the_open_ones_carry_on(tmp_path: Path) -> None:
    async with world(tmp_path, cool_down_seconds=1e6) as w:
        updates = [await w.subscribe()]
        w.first.refuses = w.second.refuses = True
        updates += [await w.subscribe() for _ in range(3)]
        assert w.counts == [4, 0]
        await w.publish(0, 1)
        assert [number_of(await anext(each)) for each in updates] == [0, 0, 0, 0]


async def test_a_token_is_asked_for_once_for_all_connections(tmp_path: Path) -> None:
    async with rotation.world(tmp_path) as w:
        given: list[str] = []

        def source() -> str:
            given.append(rotation.token(1.0))
            return given[-1]

        pool = SubscriptionConnectionPool(3, subscriptions_per_connection=1)
        async with w.client(source, pool=pool) as client:
            all_seen: list[list[object]] = [[], [], []]
            for seen in all_seen:
                builder = client.workflows.subscribe_resource_updates(workflow_id=w.workflow)
                (await builder.subscribe()).on_update(numbers(seen))
            assert counts(pool.health()) == [1, 1, 1]
            n = 0
            while len(given) < 3 or w.proxy.connections_made < 9:
                await w.publish(n)
                n += 1
            await until(lambda: all(len(seen) >= n for seen in all_seen))
            assert all(seen == list(range(n)) for seen in all_seen)
            assert len(given) <= w.proxy.connections_made // 3 + 1


async def test_where_the_server_gives_no_cursors_a_slow_connection_keeps_its_subscriptions() -> None:
    peers: list[Peer] = []

    async def script(peer: Peer) -> None:
        is_deaf = not peers
        peers.append(peer)
        await acknowledge(peer)
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                frame = await peer.read_frame()
                if frame.opcode == CLOSE:
                    peer.send_frame(CLOSE, frame.payload)
                    return
                if not is_deaf and b'"ping"' in frame.payload:
                    send_message(peer, type="pong")

    pool = SubscriptionConnectionPool(
        2, subscriptions_per_connection=1, check_seconds=0.02, max_round_trip_seconds=1.0
    )
    async with (
        serve(script) as port,
        Client(f"ws://127.0.0.1:{port}/graphql", pool=pool, heartbeat=OFTEN) as client,
    ):
        slow = await client.subscribe("subscription { tick }", type=int)
        other = await client.subscribe("subscription { tick }", type=int)
        id_ = slow.id
        await until(lambda: [connection.is_healthy for connection in pool.health()] == [False, True])
        assert (slow.id, counts(pool.health())) == (id_, [1, 1])
        assert slow.state is other.state is SubscriptionState.LIVE
