"""Starting subscriptions on a raw server: when they are live, what is refused, what is left."""

from __future__ import annotations

import asyncio

import pytest

from circuit_breaker_sdk.config import Timeouts
from circuit_breaker_sdk.errors import OperationTimeoutError, SubscriptionFailed, UsageError
from circuit_breaker_sdk.subscriptions import Operation, Subscription
from tests.connections.raw_server import acknowledge, read_message, send_message, send_next, stay
from tests.subscriptions.managers import TICKS, manager
from tests.transports.peers import Peer
from tests.waiting import until

RESUME: dict[str, object] = {"resume": {"version": 1, "epoch": "e"}}


async def test_where_resume_was_negotiated_it_returns_at_the_live_signal() -> None:
    signal = asyncio.Event()
    subscribed = asyncio.Event()

    async def script(peer: Peer) -> None:
        await acknowledge(peer, RESUME)
        id_ = (await read_message(peer))["id"]
        subscribed.set()
        await signal.wait()
        send_message(peer, type="ping", payload={"resume": {"id": id_, "cursor": "c0"}})
        await stay(peer)

    async with manager(script) as under_test:
        starting = asyncio.create_task(under_test.subscribe(TICKS, Subscription))
        await subscribed.wait()
        assert not starting.done()
        signal.set()
        ticks = await starting
        assert (ticks.state, ticks.cursor, under_test.active) == ("live", "c0", 1)


async def test_without_a_live_signal_it_is_a_timeout_and_the_server_is_told() -> None:
    told = asyncio.Event()

    async def script(peer: Peer) -> None:
        await acknowledge(peer, RESUME)
        id_ = (await read_message(peer))["id"]
        assert await read_message(peer) == {"id": id_, "type": "complete"}
        told.set()
        await stay(peer)

    async with manager(script, Timeouts(subscribe_seconds=0.02)) as under_test:
        with pytest.raises(OperationTimeoutError, match="subscribing to ticks"):
            await under_test.subscribe(TICKS, Subscription)
        await told.wait()
        assert under_test.active == 0


async def test_a_refusal_before_the_live_signal_is_raised() -> None:
    async def script(peer: Peer) -> None:
        await acknowledge(peer, RESUME)
        id_ = (await read_message(peer))["id"]
        send_message(peer, id=id_, type="error", payload=[{"message": "no such field"}])
        await stay(peer)

    async with manager(script) as under_test:
        with pytest.raises(SubscriptionFailed, match="no such field"):
            await under_test.subscribe(TICKS, Subscription)
        assert under_test.active == 0


async def test_ids_are_fresh_and_of_one_length_and_events_of_ended_ones_stay_counted() -> None:
    ids: list[str] = []

    async def script(peer: Peer) -> None:
        await acknowledge(peer)
        for _ in range(2):
            message = await read_message(peer)
            ids.append(str(message["id"]))
            send_next(peer, ids[-1], 1)
            send_message(peer, id=ids[-1], type="complete")
        await stay(peer)

    async with manager(script) as under_test:
        for _ in range(2):
            ticks = await under_test.subscribe(TICKS, Subscription)
            assert [tick async for tick in ticks] == [1]
        assert (under_test.active, under_test.messages_received) == (0, 2)
        with pytest.raises(UsageError):
            await under_test.subscribe(
                Operation(document="", type=int, variables={"x": object()}), Subscription
            )
        await under_test.aclose()
        with pytest.raises(UsageError, match="closed"):
            await under_test.subscribe(TICKS, Subscription)
    assert len(set(ids)) == 2
    assert len({len(id_) for id_ in ids}) == 1


async def test_a_renewal_that_is_never_answered_costs_its_connection_and_goes_to_another() -> None:
    connections: list[Peer] = []

    async def script(peer: Peer) -> None:
        connections.append(peer)
        await acknowledge(peer, RESUME)
        id_ = (await read_message(peer))["id"]
        if len(connections) != 2:
            send_message(peer, type="ping", payload={"resume": {"id": id_, "cursor": "c0"}})
            if len(connections) == 1:
                await read_message(peer)  # the pong
                peer.vanish()
                return
        await stay(peer)

    async with manager(script, Timeouts(subscribe_seconds=0.1), max_retries=None) as under_test:
        ticks = await under_test.subscribe(TICKS, Subscription)
        await until(lambda: len(connections) == 3 and ticks.state == "live")
        assert "resuming ticks: no answer within 0.1 s" in str(ticks.last_error)


async def test_one_whose_connection_is_lost_before_it_was_live_goes_on_by_the_next() -> None:
    connections: list[Peer] = []

    async def script(peer: Peer) -> None:
        connections.append(peer)
        await acknowledge(peer, RESUME)
        request = await read_message(peer)
        if len(connections) == 1:
            peer.vanish()
            return
        assert "extensions" not in str(request), "it has nothing to resume from"
        send_message(peer, type="ping", payload={"resume": {"id": request["id"], "cursor": "c0"}})
        await stay(peer)

    async with manager(script, max_retries=None) as under_test:
        ticks = await under_test.subscribe(TICKS, Subscription)
        assert (ticks.state, ticks.continuity, len(connections)) == ("live", "ok", 2)
