"""Generated runs on one connection: one subscription misbehaves, the others get exactly what they would.

Each run has two to five subscriptions; one of them misbehaves in a way that a seed chooses: a bad document,
a payload that is odd, a handler or filter that raises, an end inside a callback. The sequences of the others
have to be those that the server sent, and the connection is the same one through all runs.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Final, final

import pytest

from circuit_breaker_sdk import Client, Subscription, SubscriptionError, TransportError
from circuit_breaker_sdk.transports.websocket import WebSocket
from tests.transports.peers import SUBPROTOCOL, listen
from tests.waiting import until

RUNS: Final = 100
SEEDS: Final = range(30)
GOOD: Final = "subscription { tick }"
BAD: Final = "subscription { bad }"

ODD_PAYLOADS: Final = (
    b'{"data":{"tick":"\\ud83d"}}',
    b'{"data":{"tick":NaN}}',
    b'{"data":{"tick":"no number"}}',
    b'{"data":{}}',
    b'{"data":[1]}',
    b"7",
    b'{"data":null,"errors":[{"message":"x"}]}',
    b'{"data":null,"errors":"x"}',
    b'{"data":{"tick":1},"errors":[{"message":"x","path":"y"}]}',
    b'{"data":{"tick":1},"extensions":{"resume":{"cursor":"c9","prev":"nobody"}}}',
    b'{"data":{"tick":1},"extensions":{"resume":7}}',
)
ODD_ERRORS: Final = (
    b'[{"message":"denied"}]',
    b'{"message":"denied"}',
    b'{"errors":[{"message":"denied"}]}',
    b'"denied"',
    b"[]",
    b"null",
    b'[{"message":"later","extensions":{"code":"RATE_LIMITED","retryAfterSeconds":0.001}}]',
    b'[{"message":"gone","extensions":{"code":"RESUME_GAP","reason":"trimmed"}}]',
)


@final
class RawServer:
    """Sends what a test says, byte for byte; it is the sink of its one socket as well."""

    def __init__(self) -> None:
        self.socket: WebSocket | None = None
        self.sockets = 0
        self.ids: list[str] = []
        self.sent: dict[str, int] = {}

    def open(self, socket: WebSocket) -> RawServer:
        self.socket = socket
        self.sockets += 1
        return self

    def on_message(self, data: bytes) -> None:
        message = json.loads(data)
        if message["type"] == "connection_init":
            self.raw(b'{"type":"connection_ack","payload":{"resume":{"version":1,"epoch":"e"}}}')
        elif message["type"] == "subscribe":
            id_ = message["id"]
            if message["payload"]["query"] == BAD:
                self.raw(b'{"id":"%b","type":"error","payload":[{"message":"bad"}]}' % id_.encode())
                return
            self.ids.append(id_)
            self.sent[id_] = 0
            live = {"resume": {"id": id_, "cursor": "c0"}}
            self.raw(json.dumps({"type": "ping", "payload": live}).encode())

    def on_closed(self, code: int, reason: str) -> None:
        """Ignore it: the test looks at the number of sockets."""

    def on_writable(self, writable: bool) -> None:
        """Ignore it: little is written."""

    def raw(self, message: bytes) -> None:
        assert self.socket is not None
        self.socket.send_message(message)

    def event(self, id_: str) -> None:
        """Send the next number of a subscription, chained to the one before."""
        number = self.sent[id_] = self.sent[id_] + 1
        resume = {"cursor": f"c{number}", "prev": f"c{number - 1}"}
        payload = {"data": {"tick": number}, "extensions": {"resume": resume}}
        self.raw(json.dumps({"id": id_, "type": "next", "payload": payload}).encode())

    def odd(self, id_: str, type_: str, payload: bytes) -> None:
        self.raw(b'{"id":"%b","type":"%b","payload":%b}' % (id_.encode(), type_.encode(), payload))


@asynccontextmanager
async def joined() -> AsyncIterator[tuple[RawServer, Client]]:
    server = RawServer()
    async with (
        listen(server.open, subprotocol=SUBPROTOCOL) as port,
        Client(f"ws://127.0.0.1:{port}/graphql") as client,
    ):
        yield server, client


@final
class Run:
    """One run: its subscriptions, and what the innocent ones have got."""

    def __init__(self, server: RawServer, client: Client, chance: random.Random) -> None:
        self.server = server
        self.client = client
        self.chance = chance
        self.seen: list[list[int]] = []
        self.reading: list[asyncio.Task[None]] = []
        self.innocent: list[tuple[str, Subscription[int]]] = []

    async def subscribe(self) -> tuple[str, Subscription[int]]:
        subscription = await self.client.subscribe(GOOD, type=int)
        return self.server.ids[-1], subscription

    async def add_innocent(self) -> None:
        id_, subscription = await self.subscribe()
        seen: list[int] = []
        self.innocent.append((id_, subscription))
        self.seen.append(seen)
        match self.chance.choice(["plain", "async", "iterate", "filter"]):
            case "plain":
                subscription.on_data(seen.append)
            case "async":

                async def slowly(value: int) -> None:
                    await asyncio.sleep(0)
                    seen.append(value)

                subscription.on_data(slowly)
            case "iterate":
                self.reading.append(asyncio.ensure_future(_read(subscription, seen)))
            case _:
                subscription.filter(lambda _: True).on_data(seen.append)

    async def add_culprit(self, how: str) -> Callable[[], object]:
        """Subscribe the one that misbehaves; return what makes it do so."""
        chance, server = self.chance, self.server
        if how == "bad document":
            with pytest.raises((TransportError, SubscriptionError)):
                await self.client.subscribe(BAD, type=int)
            return lambda: None
        id_, culprit = await self.subscribe()
        if chance.random() < 0.5:
            culprit.on_error(_raising(ValueError("on_error")) if chance.random() < 0.3 else lambda _: None)
        match how:
            case "odd payload":
                odd = chance.choice(ODD_PAYLOADS)
                return lambda: server.odd(id_, "next", odd)
            case "odd error":
                wrong = chance.choice(ODD_ERRORS)
                return lambda: server.odd(id_, "error", wrong)
            case "handler raises":
                culprit.on_data(_raising(chance.choice(_ERRORS)))
            case "async handler raises":

                async def fails(_value: int) -> None:
                    await asyncio.sleep(0)
                    raise chance.choice(_ERRORS)

                culprit.on_data(fails)
            case "filter raises":
                culprit.filter(_raising(chance.choice(_ERRORS))).on_data(lambda _: None)
            case "ends inside its handler":
                culprit.on_data(lambda _: culprit._delivery.unsubscribe())
            case "attaches inside its handler":
                culprit.on_data(lambda _: culprit.on_data(lambda _: None).filter(lambda _: False))
            case "completes":
                return lambda: server.raw(b'{"id":"%b","type":"complete"}' % id_.encode())
            case "is dropped":
                del culprit
        return lambda: server.event(id_)

    def has_seen(self, count: int) -> bool:
        return all(len(seen) >= count for seen in self.seen)

    async def end(self) -> None:
        for _, subscription in self.innocent:
            await subscription.unsubscribe()
        await asyncio.gather(*self.reading)


async def _read(subscription: Subscription[int], seen: list[int]) -> None:
    async for value in subscription:
        seen.append(value)  # noqa: PERF401 (what was seen so far is looked at)


_ERRORS: Final[tuple[BaseException, ...]] = (
    ValueError("a"),
    asyncio.CancelledError(),
    RecursionError(),
    MemoryError(),
    StopIteration(),
    KeyError("k"),
)
WAYS: Final = (
    "bad document",
    "odd payload",
    "odd error",
    "handler raises",
    "async handler raises",
    "filter raises",
    "ends inside its handler",
    "attaches inside its handler",
    "completes",
    "is dropped",
)


def _raising(error: BaseException) -> Callable[[Any], object]:
    def raises(_value: object) -> object:
        raise error

    return raises


@pytest.mark.parametrize("seed", SEEDS)
async def test_the_others_get_exactly_what_they_would_without_it(seed: int) -> None:
    chance = random.Random(seed)  # noqa: S311 (chance)
    async with joined() as (server, client):
        for number in range(RUNS):
            how = WAYS[number % len(WAYS)]
            run = Run(server, client, chance)
            before, behind = chance.randrange(0, 3), chance.randrange(0, 3)
            for _ in range(before):
                await run.add_innocent()
            misbehave = await run.add_culprit(how)
            for _ in range(max(behind, 1)):
                await run.add_innocent()
            steps: list[Callable[[], object]] = [
                partial(server.event, id_) for id_, _ in run.innocent for _ in range(3)
            ]
            steps += [misbehave] * chance.randrange(1, 4)
            chance.shuffle(steps)
            for step in steps:
                step()
                if chance.random() < 0.3:
                    await asyncio.sleep(0)
            await until(partial(run.has_seen, 3))
            assert run.seen == [[1, 2, 3]] * len(run.innocent), (seed, number, how)
            assert all(subscription.error is None for _, subscription in run.innocent), (seed, number, how)
            await run.end()
        assert server.sockets == 1, "the connection was never lost"
