"""The health of a client: each reason of a verdict by a real fault, from ok and back."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest

from circuit_breaker_sdk import (
    BufferLimits,
    Client,
    OverflowPolicy,
    SyncClient,
    UsageError,
)
from circuit_breaker_sdk.config import TransportKind
from circuit_breaker_sdk.observability import HealthLimits, Verdict
from circuit_breaker_sdk.subscriptions.health_check import look
from circuit_breaker_sdk.testing import Direction
from tests.hot_path.paths import _subscribed
from tests.integration.workflows import create_review_workflow, number_of
from tests.observability.worlds import LIMITS, world
from tests.waiting import until

# --- each reason ---------------------------------------------------------------------------------------


async def test_a_circuit_breaker_that_is_open_is_failing_while_a_subscription_waits(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        updates = await w.client.subscriptions.resource_updates().subscribe()
        await w.until(Verdict.OK)
        w.proxy.refuses = True
        w.proxy.cut()
        health = await w.until(Verdict.FAILING, f"the circuit breaker of {w.url} is open")
        (connection,) = health.connections
        assert [(each.url, each.state) for each in connection.circuit_breakers] == [(w.url, "open")]
        assert (connection.seconds_since_frame, connection.round_trip_seconds) == (None, None)
        assert connection.failures >= 2
        await w.until(Verdict.FAILING, f"waited for {w.url} for")
        w.proxy.refuses = False
        health = await w.until(Verdict.OK)
        assert health.connections[0].reconnects >= 1
        assert health.connections[0].circuit_breakers[0].state != "open"
        assert updates.continuity == "ok"


async def test_a_lost_connection_is_degraded_at_first_and_failing_after_a_while(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        updates = await w.client.subscriptions.resource_updates().subscribe()
        patient = HealthLimits(away_seconds=60.0)
        assert (await w.until(Verdict.OK, limits=patient)).connections[0].state == "connected"
        w.proxy.refuses = True
        w.proxy.cut()
        health = await w.until(Verdict.DEGRADED, "1 subscription has waited for", patient)
        assert (health.subscriptions.reconnecting, health.transports.none) == (1, 1)
        assert health.worst[0].state == updates.state == "reconnecting"
        await w.until(Verdict.FAILING, "1 subscription has waited for")
        w.proxy.refuses = False
        assert (await w.until(Verdict.OK)).subscriptions.live == 1


async def test_a_consumer_that_takes_nothing_is_degraded_and_a_stopped_stream_is_failing(
    tmp_path: Path,
) -> None:
    async with world(tmp_path) as w:
        builder = w.client.workflows.subscribe_resource_updates(workflow_id=w.workflow)
        unread = await builder.buffer(BufferLimits(max_events=5)).subscribe()
        read = await w.client.workflows.subscribe_workflow_events(workflow_id=w.workflow).subscribe()
        read.on_data(lambda _event: None)
        assert (await w.until(Verdict.OK)).worst[0].waiting_seconds == 0.0
        await w.publish(1, 2, 3)
        reason = f"resourceUpdates ({unread.id}) has waited for its consumer for"
        health = await w.until(Verdict.DEGRADED, reason)
        worst = health.worst[0]
        assert (worst.id, worst.buffered_events, worst.is_paused) == (unread.id, 3, False)
        assert worst.transport is TransportKind.WEBSOCKET
        assert worst.continuity == "ok"
        assert worst.waiting_seconds == health.longest_wait_seconds >= LIMITS.consumer_seconds
        assert worst.seconds_since_event is not None
        assert [(h.id, h.buffered_events) for h in health.memory.holders] == [(unread.id, 3)]
        assert health.memory.buffered_bytes == worst.buffered_bytes > 0
        await w.publish(4, 5, 6)
        health = await w.until(Verdict.FAILING, reason)
        assert (health.worst[0].is_paused, health.worst[0].buffered_events) == (True, 5)
        assert health.subscriptions.paused == 1
        assert [number_of(await anext(unread)) for _ in range(6)] == [1, 2, 3, 4, 5, 6]
        health = await w.until(Verdict.OK)
        assert health.memory.holders == ()
        assert health.memory.buffered_bytes == health.longest_wait_seconds == 0


async def test_a_stopped_stream_is_failing_at_the_first_look_already(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        builder = w.client.workflows.subscribe_resource_updates(workflow_id=w.workflow)
        unread = await builder.buffer(BufferLimits(max_events=1)).subscribe()
        await w.publish(1, 2)
        await until(lambda: unread.stats().paused_seconds > LIMITS.consumer_seconds)
        assert w.health().verdict is Verdict.FAILING


async def test_one_that_holds_the_connection_is_the_reason_and_not_its_silence(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        builder = w.client.workflows.subscribe_resource_updates(workflow_id=w.workflow)
        limits = BufferLimits(max_events=1, overflow=OverflowPolicy.BLOCK)
        unread = await builder.buffer(limits).subscribe()
        await w.publish(1)
        await w.until(Verdict.FAILING, "has waited for its consumer")
        await asyncio.sleep(LIMITS.silence_seconds * 1.5)
        (reason,) = w.health().reasons
        assert "has waited for its consumer" in reason
        await anext(unread)
        await w.until(Verdict.OK)


async def test_a_consumer_that_takes_slowly_is_not_one_that_takes_nothing(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        updates = await w.client.workflows.subscribe_resource_updates(workflow_id=w.workflow).subscribe()
        await w.publish(*range(8))
        await until(lambda: updates.stats().buffered_events == 8)
        for left in range(8, 1, -1):
            health = w.health()
            assert (health.verdict, health.worst[0].buffered_events) == (Verdict.OK, left)
            await asyncio.sleep(LIMITS.consumer_seconds / 4)
            await anext(updates)


async def test_a_connection_that_brings_nothing_is_failing_until_it_does(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        _updates = await w.client.subscriptions.resource_updates().subscribe()
        health = await w.until(Verdict.OK)
        assert health.connections[0].seconds_since_frame is not None
        await until(lambda: w.health().connections[0].round_trip_seconds)
        w.proxy.stall(Direction.TO_CLIENT)
        health = await w.until(Verdict.FAILING, f"no sign of life from {w.url} for")
        assert health.connections[0].seconds_since_frame > LIMITS.silence_seconds  # type: ignore[operator]
        assert health.connections[0].round_trip_seconds > 0.2  # type: ignore[operator]  # unanswered so far
        w.proxy.flow()
        health = await w.until(Verdict.OK)
        assert health.connections[0].reconnects == 0


async def test_a_slow_path_is_degraded(tmp_path: Path) -> None:
    patient = HealthLimits(round_trip_seconds=0.2, silence_seconds=60.0)
    async with world(tmp_path) as w:
        _updates = await w.client.subscriptions.resource_updates().subscribe()
        await w.until(Verdict.OK, limits=patient)
        w.proxy.delay_seconds = 0.3
        await w.until(Verdict.DEGRADED, f"{w.url} takes", patient)
        w.proxy.delay_seconds = 0.0
        await w.until(Verdict.OK, limits=patient)


@pytest.mark.parametrize(("kind", "way"), [("poll", "polling"), ("sse", "server-sent events")])
async def test_stand_ins_are_degraded(tmp_path: Path, kind: str, way: str) -> None:
    async with world(tmp_path, transports=("websocket", kind)) as w:
        both = [
            await w.client.subscriptions.resource_updates().critical().subscribe(),
            await w.client.workflows.subscribe_workflow_events(workflow_id=w.workflow).critical().subscribe(),
        ]
        await w.until(Verdict.OK)
        w.proxy.refuses_upgrades = True
        w.proxy.cut()
        health = await w.until(Verdict.DEGRADED, f"2 subscriptions come by {way}")
        assert getattr(health.transports, kind) == 2
        assert {each.transport for each in health.worst} == {both[0].transport}
        w.proxy.refuses_upgrades = False
        health = await w.until(Verdict.OK)
        assert (health.transports.websocket, getattr(health.transports, kind)) == (2, 0)


async def test_a_client_without_websockets_is_well_with_polls(tmp_path: Path) -> None:
    async with world(tmp_path, transports=("poll",)) as w:
        _updates = await w.client.subscriptions.resource_updates().subscribe()
        health = w.health()
        assert (health.verdict, health.transports.poll) == (Verdict.OK, 1)


async def test_buffers_that_fill_are_degraded(tmp_path: Path) -> None:
    patient = HealthLimits(consumer_seconds=60.0, buffered_share=0.25)
    async with world(tmp_path, max_buffered_bytes=40_000) as w:
        updates = await w.client.workflows.subscribe_resource_updates(workflow_id=w.workflow).subscribe()
        await w.until(Verdict.OK, limits=patient)
        await w.publish(1, 2, padding=6_000)
        health = await w.until(Verdict.DEGRADED, "of 40000 bytes", patient)
        assert health.memory.max_buffered_bytes == 40_000
        for _ in range(2):
            await anext(updates)
        await w.until(Verdict.OK, limits=patient)


async def test_a_closed_client_is_failing(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.client.aclose()
        assert (w.health().verdict, w.health().reasons) == (Verdict.FAILING, ("the client is closed",))


async def test_where_many_wait_three_are_named(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        unread = [
            await w.client.workflows.subscribe_resource_updates(workflow_id=w.workflow).subscribe()
            for _ in range(5)
        ]
        await w.publish(1)
        health = await w.until(Verdict.DEGRADED, "2 more wait for their consumers")
        assert len(health.reasons) == 4
        assert len(w.client.health(worst=2).worst) == len(w.client.health(worst=2).memory.holders) == 2
        for each in unread:
            await anext(each)
        await w.until(Verdict.OK)


# --- times ---------------------------------------------------------------------------------------------


async def test_times_since_an_event_are_exact_to_the_time_between_two_looks(tmp_path: Path) -> None:
    async with world(tmp_path, heartbeat=None) as w:
        updates = await w.client.workflows.subscribe_resource_updates(workflow_id=w.workflow).subscribe()
        (before,) = w.health().worst
        assert before.seconds_since_event is None
        assert before.seconds_since_life is not None  # its live signal
        await asyncio.sleep(0.2)
        assert w.health().worst[0].seconds_since_life > 0.15  # type: ignore[operator]
        await w.publish(1)
        await anext(updates)
        first = w.health().worst[0].seconds_since_event
        await asyncio.sleep(0.2)
        second = w.health().worst[0]
        assert first is not None
        assert second.seconds_since_event is not None
        assert second.seconds_since_event == second.seconds_since_life
        assert second.seconds_since_event - first > 0.15
        # Whatever else the connection brings: this is about the subscription.
        assert second.seconds_since_event > 0.15


async def test_a_slow_consumer_is_behind_the_server_and_no_more_once_it_has_read(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        builder = w.client.workflows.subscribe_resource_updates(workflow_id=w.workflow)
        unread = await builder.buffer(BufferLimits(max_events=2)).subscribe()

        def behind() -> int | None:
            return w.health().worst[0].records_behind

        assert behind() is None  # the server was not asked before
        await until(lambda: behind() == 0)
        await w.publish(1, 2)
        await until(lambda: unread.stats().buffered_events == 2)
        await until(lambda: behind() == 0)
        await w.publish(3, 4, 5, 6)
        await until(lambda: behind() == 4)
        assert (unread.state, w.health().worst[0].is_paused) == ("paused", True)
        for n in range(1, 7):
            assert number_of(await anext(unread)) == n
        await until(lambda: behind() == 0)
        w.proxy.refuses = True
        w.proxy.cut()
        await until(lambda: behind() is None)
        w.proxy.refuses = False
        await until(lambda: behind() == 0)


async def test_what_matches_nothing_does_not_put_a_live_subscription_behind(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        other = (await create_review_workflow(w.direct)).id
        _kept = await w.client.workflows.subscribe_resource_updates(workflow_id=other).subscribe()
        await w.publish(1, 2, 3)
        await until(lambda: w.health().worst[0].records_behind == 0)


@pytest.mark.parametrize("kind", ["sse", "poll"])
async def test_how_far_behind_is_not_known_without_a_websocket(tmp_path: Path, kind: str) -> None:
    async with world(tmp_path, transports=(kind,)) as w:
        _kept = await w.client.subscriptions.resource_updates().subscribe()
        for _ in range(3):
            assert w.health().worst[0].records_behind is None
            await asyncio.sleep(0)


async def test_nothing_secret_is_told() -> None:
    client = Client("wss://host.example/graphql?tenant=a-secret")
    text = repr(client.health())
    assert "host.example" in text
    assert "a-secret" not in text


async def test_arguments_and_threads_that_cannot_be_used_are_refused(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.client.subscriptions.resource_updates().subscribe()
        with pytest.raises(UsageError, match="worst must not be negative"):
            w.client.health(worst=-1)
        with pytest.raises(UsageError, match="limits must be of type HealthLimits"):
            w.client.health(limits=3)  # type: ignore[arg-type]  # what is refused
        with pytest.raises(UsageError, match="event loop"):
            await asyncio.to_thread(w.client.health)


def test_the_blocking_client_tells_the_same_from_any_thread() -> None:
    with SyncClient("ws://localhost") as client:
        assert client.health() == Client("ws://localhost").health()
        assert client.health().verdict is Verdict.OK
        assert client.measure_latency().health().latency is not None


# --- what it costs -------------------------------------------------------------------------------------


async def test_a_look_costs_less_than_a_hundred_bytecodes_a_subscription() -> None:
    """So with ten thousand it is less than a million, some 5 ms; a backlog in one of twenty here."""
    count = 2_000
    async with _subscribed(count, 20) as (subscribed, rig):
        for _ in range(5):
            rig.step(rig.prepare())
        manager = _manager_of(subscribed[0])
        look(manager, HealthLimits(), worst=10)
        assert look(manager, HealthLimits(), worst=10).memory.buffered_events == 100
        executed = 0

        def trace(frame, event, _argument):  # type: ignore[no-untyped-def]
            nonlocal executed
            frame.f_trace_opcodes = True
            if event == "opcode":
                executed += 1
            return trace

        before = sys.gettrace()
        sys.settrace(trace)
        try:
            look(manager, HealthLimits(), worst=10)
        finally:
            sys.settrace(before)
        assert executed / count < 100
        for subscription in subscribed[:100]:
            await anext(subscription)


def _manager_of(subscription: object):  # type: ignore[no-untyped-def]
    """Make a manager's face of what `_subscribed` has made."""
    member = subscription._delivery.owner  # type: ignore[attr-defined]

    class Manager:
        members = (member,)
        uses_websocket = True
        buffered_bytes = 0
        max_buffered_bytes = 1 << 26
        latency = None

    return Manager()
