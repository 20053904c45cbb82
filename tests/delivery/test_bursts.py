"""A burst on a real socket: what waits stays small, and nothing else has to wait for it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
import uvloop

from circuit_breaker_sdk import BufferLimits, Client, Subscription
from tests.connections.raw_server import acknowledge, read_message, send_message, stay
from tests.transports.peers import TEXT, Peer, serve
from tests.waiting import until

EVENTS = 20_000
ROOM = BufferLimits(max_events=EVENTS, max_bytes=1 << 26)
PADDING = "x" * 200
READ_BYTES = 64 * 1024

LOOPS = pytest.mark.parametrize("new_loop", [uvloop.new_event_loop, asyncio.new_event_loop])
Loop = Callable[[], asyncio.AbstractEventLoop]


def on(new_loop: Loop, test: Coroutine[Any, Any, None]) -> None:
    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(test)


async def begin(peer: Peer, operations: int = 1) -> list[str]:
    await acknowledge(peer, {"resume": {"version": 1, "epoch": "9f2c41d07be3a856"}})
    names = []
    for _ in range(operations):
        names.append(str((await read_message(peer))["id"]))
        send_message(peer, type="ping", payload={"resume": {"id": names[-1], "cursor": "c0"}})
        await read_message(peer)
    return names


def event(peer: Peer, name: str, n: int, *, padding: str = PADDING) -> bytes:
    payload = {
        "data": {"tick": {"n": n, "text": padding}},
        "extensions": {"resume": {"cursor": f"c{n + 1}", "prev": f"c{n}"}},
    }
    return peer.frame(TEXT, json.dumps({"id": name, "type": "next", "payload": payload}).encode())


def burst(peer: Peer, name: str, count: int = EVENTS) -> None:
    peer.send(b"".join(event(peer, name, n) for n in range(count)))


async def subscribed(client: Client) -> Subscription[Any]:
    return await client.subscribe("subscription { tick }", buffer=ROOM)


@LOOPS
def test_a_consumer_that_keeps_up_has_little_waiting_however_much_is_sent(new_loop: Loop) -> None:
    async def flood(peer: Peer) -> None:
        burst(peer, (await begin(peer))[0])
        await stay(peer)

    async def test() -> None:
        async with serve(flood) as port, Client(f"ws://127.0.0.1:{port}/graphql") as client:
            subscription = await subscribed(client)
            seen, most = 0, 0
            async for tick in subscription:
                assert tick["n"] == seen
                assert subscription.cursor == f"c{seen}"
                seen += 1
                most = max(most, subscription.stats().buffered_events)
                if seen == EVENTS:
                    break
            assert most <= 256 + 32 + READ_BYTES // len(PADDING)

    on(new_loop, test())


@LOOPS
def test_a_ping_behind_a_burst_is_answered_though_nobody_takes_the_events(new_loop: Loop) -> None:
    answered = asyncio.Event()

    async def flood(peer: Peer) -> None:
        burst(peer, (await begin(peer))[0])
        send_message(peer, type="ping")
        assert (await read_message(peer))["type"] == "pong"
        answered.set()
        await stay(peer)

    async def test() -> None:
        async with serve(flood) as port, Client(f"ws://127.0.0.1:{port}/graphql") as client:
            subscription = await subscribed(client)
            await asyncio.wait_for(answered.wait(), 20)
            assert subscription.stats().buffered_events == EVENTS

    on(new_loop, test())


@LOOPS
def test_a_quiet_subscription_behind_a_busy_one_is_not_starved(new_loop: Loop) -> None:
    async def flood(peer: Peer) -> None:
        busy, quiet = await begin(peer, 2)
        burst(peer, busy, EVENTS // 2)
        peer.send(event(peer, quiet, 0))
        await stay(peer)

    async def test() -> None:
        async with serve(flood) as port, Client(f"ws://127.0.0.1:{port}/graphql") as client:
            busy, quiet = await subscribed(client), await subscribed(client)
            async with asyncio.timeout(20):
                assert (await anext(busy))["n"] == 0  # and no more of it
                assert (await anext(quiet))["n"] == 0

    on(new_loop, test())


@LOOPS
def test_a_client_that_closes_in_the_middle_of_a_burst_hears_the_answer(new_loop: Loop) -> None:
    ends: list[bytes] = []

    async def flood(peer: Peer) -> None:
        burst(peer, (await begin(peer))[0])
        await stay(peer)
        ends.append(await peer.read_to_end())

    async def test() -> None:
        async with serve(flood) as port:
            async with Client(f"ws://127.0.0.1:{port}/graphql") as client:
                subscription = await subscribed(client)
                assert (await anext(subscription))["n"] == 0
            await until(lambda: ends == [b""])

    on(new_loop, test())


@LOOPS
def test_cancelling_in_the_middle_of_a_burst_loses_nothing(new_loop: Loop) -> None:
    async def flood(peer: Peer) -> None:
        (name,) = await begin(peer)
        for n in range(2_000):
            peer.send(event(peer, name, n))
            if n % 100 == 0:
                await peer.writer.drain()
                await asyncio.sleep(0)
        await stay(peer)

    async def test() -> None:
        async with serve(flood) as port, Client(f"ws://127.0.0.1:{port}/graphql") as client:
            subscription = await subscribed(client)
            seen: list[int] = []

            async def read() -> None:
                async for tick in subscription:
                    seen.append(tick["n"])
                    if tick["n"] % 7 == 0:
                        await asyncio.sleep(0)

            while len(seen) < 2_000:
                reading = asyncio.create_task(read())
                for _ in range(5):
                    await asyncio.sleep(0)
                reading.cancel()
                await asyncio.wait((reading,))
                if seen:
                    assert subscription.cursor in (f"c{seen[-1]}", f"c{seen[-1] + 1}")
            assert seen == list(range(2_000))

    on(new_loop, test())
