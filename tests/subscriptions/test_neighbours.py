"""One subscription ends, or fails, in the middle of what is done with all: the others notice nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from circuit_breaker_sdk.config import BufferLimits, ErrorRecoveryPolicy, MessageBatching, Timeouts
from circuit_breaker_sdk.connections import FallbackLinks, PollConnection, Supervisor
from circuit_breaker_sdk.connections.opening import open_connection
from circuit_breaker_sdk.delivery.subscription_state import SubscriptionState
from circuit_breaker_sdk.errors import ConnectionFailed, GraphQLError
from circuit_breaker_sdk.recovery.gaps import Gap
from circuit_breaker_sdk.subscriptions import Operation, Subscription, SubscriptionManager
from tests.connections.raw_server import (
    Losses,
    RecordingRoute,
    acknowledge,
    opened,
    read_message,
    send_message,
    settings,
    stay,
    subscribe,
)
from tests.delivery.deliveries import Rig
from tests.transports.peers import Peer, serve
from tests.waiting import until

TICKS = Operation(document="subscription { tick }", type=int, label="ticks")
RESUME: dict[str, object] = {"resume": {"version": 1, "epoch": "e"}}


async def answer_live(peer: Peer) -> None:
    """Say of each subscription that it is live, until the client closes."""
    await acknowledge(peer, RESUME)
    try:
        while True:
            message = await read_message(peer)
            if message["type"] == "subscribe":
                send_message(peer, type="ping", payload={"resume": {"id": message["id"], "cursor": "c0"}})
    except (AssertionError, asyncio.IncompleteReadError, ConnectionError):
        peer.vanish()


async def test_one_that_ends_during_a_hand_over_is_left_out_and_the_others_go_on() -> None:
    async with serve(answer_live) as port:
        owner = Supervisor(settings(port))
        manager = SubscriptionManager(
            owner,
            FallbackLinks([PollConnection(settings(port))], rest_seconds=2.0),
            buffer=BufferLimits(),
            timeouts=Timeouts(close_seconds=0.1),
            policy=ErrorRecoveryPolicy(),
        )
        each = await asyncio.gather(*(manager.subscribe(TICKS, Subscription) for _ in range(250)))
        old = await owner.connection()
        new = await open_connection(settings(port), Losses())
        handing = asyncio.create_task(manager._only._recovery.hand_over(old, new))
        await asyncio.sleep(0)  # the first hundred are handed over
        assert [each[n]._delivery.link is new for n in (99, 100)] == [True, False]
        await each[200].unsubscribe()
        await handing
        assert new.is_usable
        others = [ticks._delivery for n, ticks in enumerate(each) if n != 200]
        await until(lambda: all(delivery.is_proven_on_link for delivery in others))
        assert all(delivery.link is new and not delivery.is_late_on(new, after=0) for delivery in others)
        assert len(new._routes.routes()) == 249
        await manager.aclose()
        await new.aclose()
        await owner.aclose()


async def test_a_route_that_raises_keeps_no_other_from_learning_that_the_connection_is_lost() -> None:
    broken, losses = RecordingRoute(), Losses()
    broken.calls = None  # type: ignore[assignment]  # whatever it is told, it raises
    async with opened(stay_acknowledged, losses=losses) as connection:
        connection.subscribe(subscribe("00000001"), broken)
        connection.subscribe(subscribe("00000002"), route := RecordingRoute())
        connection.drop(ConnectionFailed("gone"))
        await losses.first()
        assert [call for call, _ in route.calls] == ["connection_lost"]


async def stay_acknowledged(peer: Peer) -> None:
    await acknowledge(peer)
    await stay(peer)


async def test_one_that_ends_while_the_others_are_put_back_keeps_none_from_going_live() -> None:
    connections: list[Peer] = []

    async def script(peer: Peer) -> None:
        connections.append(peer)
        await acknowledge(peer)  # no cursors: each is live once its message is written
        if len(connections) == 1:
            for _ in range(3):
                await read_message(peer)
            peer.vanish()
            return
        await stay(peer)

    gaps: list[Gap] = []
    async with serve(script) as port:
        slow = settings(port)
        owner = Supervisor(
            type(slow)(
                url=slow.url,
                credentials=slow.credentials,
                limits=slow.limits,
                timeouts=slow.timeouts,
                batching=MessageBatching(flush_interval=0.5),
            )
        )
        manager = SubscriptionManager(
            owner,
            FallbackLinks([PollConnection(slow)], rest_seconds=2.0),
            buffer=BufferLimits(),
            timeouts=Timeouts(),
            policy=ErrorRecoveryPolicy(base_delay=0.01),
        )
        told = Operation(document="subscription { tick }", type=int, label="ticks", on_gap=gaps.append)
        each = await asyncio.gather(*(manager.subscribe(told, Subscription) for _ in range(3)))
        await until(lambda: len(connections) == 2 and each[0]._delivery.link is not None)
        assert each[0].state is SubscriptionState.RECONNECTING, "its message waits to be written"
        await each[0].unsubscribe()
        await until(lambda: [ticks.state for ticks in each[1:]] == ["live", "live"])
        await until(lambda: len(gaps) == 2)
        await manager.aclose()
        await owner.aclose()


@pytest.mark.parametrize(
    "how", ["connection_lost", "failed", "completed", "positioned", "go_live", "give_up"]
)
async def test_what_comes_for_one_that_has_ended_changes_nothing(how: str) -> None:
    rig = Rig(resume=True)
    delivery = rig.delivery
    delivery.go_live()
    delivery.unsubscribe()
    error = ConnectionFailed("gone")
    calls: dict[str, Callable[[], None]] = {
        "connection_lost": lambda: delivery.connection_lost(error),
        "failed": lambda: delivery.failed((GraphQLError(message="no"),)),
        "completed": delivery.completed,
        "positioned": lambda: delivery.positioned("c1"),
        "go_live": delivery.go_live,
        "give_up": lambda: delivery.give_up(error),
    }
    calls[how]()
    assert (delivery.state, delivery.error, delivery.link, rig.ends) == ("unsubscribed", None, None, 1)


async def test_an_error_handler_may_end_a_neighbour_of_the_lost_connection() -> None:
    losses = Losses()
    async with opened(stay_acknowledged, losses=losses) as connection:
        rigs = [Rig(), Rig(), Rig()]
        for number, rig in enumerate(rigs, 1):
            rig.delivery._link = connection
            rig.delivery.go_live()
            connection.subscribe(subscribe(f"0000000{number}"), rig.delivery)
        rigs[0].delivery.consumer.handlers.add_error(lambda _error: rigs[1].delivery.unsubscribe())
        connection.drop(ConnectionFailed("gone"))
        await losses.first()
        assert [rig.delivery.state for rig in rigs] == ["failed", "unsubscribed", "failed"]
        assert [rig.ends for rig in rigs] == [1, 1, 1]
