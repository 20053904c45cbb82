"""How long an event takes from one node to the subscribers of another, at 500 events a second."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from typing import Final, final

import aiohttp
import msgspec

from tests.system.chaos.keyed_publishing import CREATE
from tests.system.chaos.nodes.node_records import read_log
from tests.system.chaos.nodes.node_world import NodeWorld
from tests.system.chaos.nodes.processor import BusyCores
from tests.system.chaos.result import Result, percentiles
from tests.system.chaos.subscribing import Subscriber
from tests.system.chaos.world import until

__all__ = ["across_nodes"]

_PER_SECOND: Final = 500
_WARM_SECONDS: Final = 3
_SECONDS: Final = 10
_LONG_SECONDS: Final = 120
_GOAL_P50_MS: Final = 5.0
_GOAL_P99_MS: Final = 25.0
_KEPT_UP: Final = 0.95
_CONNECTIONS: Final = 200


class _Numbered(msgspec.Struct):
    n: int


class _Resource(msgspec.Struct):
    data: _Numbered


class _Made(msgspec.Struct):
    resource: _Resource | None = None


@final
class _Steady:
    """Sends numbered mutations at a steady rate, each at the next node in turn, and waits for none of them.

    :ivar sent_at: when each number was sent, by ``time.time``.
    :ivar node_of: at which node.
    :ivar late: how far behind its time the latest sending was, at most.
    """

    def __init__(self, world: NodeWorld) -> None:
        self.sent_at: dict[int, float] = {}
        self.node_of: dict[int, int] = {}
        self.answered: set[int] = set()
        self.late = 0.0
        self._world = world

    async def send(self, seconds: float) -> None:
        urls = self._world.urls
        connector = aiohttp.TCPConnector(limit=_CONNECTIONS)
        async with aiohttp.ClientSession(connector=connector) as http, asyncio.TaskGroup() as tasks:
            began = time.monotonic()
            for number in range(int(seconds * _PER_SECOND)):
                due = began + number / _PER_SECOND
                if (early := due - time.monotonic()) > 0:
                    await asyncio.sleep(early)
                self.late = max(self.late, time.monotonic() - due)
                node = number % len(urls)
                self.node_of[number] = node
                tasks.create_task(self._one(http, urls[node], number))

    async def _one(self, http: aiohttp.ClientSession, url: str, number: int) -> None:
        made = {"workflowId": self._world.workflow, "data": {"n": number}, "metadata": {}}
        variables = {"input": {**made, "initialState": "new"}}
        self.sent_at[number] = time.time()
        async with http.post(url, json={"query": CREATE, "variables": variables}) as answer:
            if b'"errors"' not in await answer.read():
                self.answered.add(number)


async def across_nodes(directory: Path, seed: int, *, long: bool) -> Result:
    """Measure from the append at one node, as the brokers date it, to a handler at each other node."""
    result = Result(experiment="across nodes", seed=seed)
    seconds = _WARM_SECONDS + (_LONG_SECONDS if long else _SECONDS)
    async with NodeWorld(directory, seed=seed) as world:
        audience = [Subscriber(world, first=n) for n in range(len(world.nodes))]
        arrived: list[dict[int, float]] = [{} for _ in audience]
        for subscriber, times in zip(audience, arrived, strict=True):
            subscriber.on_event = lambda _, n, times=times: times.setdefault(n, time.time())
            await subscriber.start()
        steady = _Steady(world)
        busy = BusyCores([os.getpid(), *(node.pid for node in world.nodes), *world.brokers.pids])
        began = time.monotonic()
        await steady.send(seconds)
        result.detail["busy cores"] = busy.since()
        took = time.monotonic() - began
        await until(lambda: all(steady.answered <= times.keys() for times in arrived), 10)
        for subscriber in audience:
            await subscriber.aclose()
        appended = {}
        for record in await read_log(world.brokers.own_urls):
            if record.subject.startswith("resource."):
                body = msgspec.json.decode(record.data, type=_Made)
                if body.resource is not None:
                    appended[body.resource.data.n] = record.time_ms / 1000
    _judge(result, steady, arrived, appended, took)
    return result


def _judge(
    result: Result,
    steady: _Steady,
    arrived: list[dict[int, float]],
    appended: dict[int, float],
    took: float,
) -> None:
    result.events = len(steady.answered)
    warm = {n for n in steady.answered if n >= _WARM_SECONDS * _PER_SECOND}
    from_append: list[float] = []
    from_sending: list[float] = []
    for node, times in enumerate(arrived):
        result.lost += len(steady.answered - times.keys())
        elsewhere = [n for n in warm & times.keys() if steady.node_of[n] != node]
        from_append += [times[n] - appended[n] for n in elsewhere if n in appended]
        from_sending += [times[n] - steady.sent_at[n] for n in elsewhere]
    found = percentiles(from_append)
    result.require_zeros()
    result.require(from_append, "no append was found in the log")
    rate = len(steady.sent_at) / took
    result.detail |= {
        "from the append, ms": found,
        "from the sending, ms": percentiles(from_sending),
        "events a second": round(rate),
        "the sender was late by, ms": round(steady.late * 1000, 1),
        "goal, ms": {"p50": _GOAL_P50_MS, "p99": _GOAL_P99_MS},
    }
    result.require(rate >= _KEPT_UP * _PER_SECOND, f"only {rate:.0f} events/s, not {_PER_SECOND}")
    for name, bound in (("p50", _GOAL_P50_MS), ("p99", _GOAL_P99_MS)):
        value = getattr(found, name)
        result.require(
            value is not None and value <= bound, f"{name} across nodes is {value} ms, over {bound:g}"
        )
