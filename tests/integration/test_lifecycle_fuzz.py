"""A client that does in any order what an application may do, on real sockets, and is closed at any moment.

``LIFECYCLE_SEED`` chooses the first sequence, ``LIFECYCLE_SEQUENCES`` how many there are.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import random
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, final

import pytest

from circuit_breaker_sdk import (
    Client,
    ErrorRecoveryPolicy,
    OfflineQueue,
    Subscription,
    SubscriptionConnectionPool,
    SubscriptionError,
    Timeouts,
    TransportError,
    UsageError,
)
from circuit_breaker_sdk.testing import FaultProxy
from circuit_breaker_sdk.types import Resource
from circuit_breaker_server import Server, ServerSettings
from tests.integration.policies import NEVER_OPEN
from tests.integration.workflows import create_review_workflow, number_of, numbers
from tests.waiting import until

FIRST_SEED = int(os.environ.get("LIFECYCLE_SEED", "1"))
SEQUENCES = int(os.environ.get("LIFECYCLE_SEQUENCES", "150"))


@final
class Application:
    """One sequence: its client, what it has subscribed to and what each has seen."""

    def __init__(
        self,
        chance: random.Random,
        proxy: FaultProxy,
        direct: Client,
        workflow: str,
        counter: itertools.count[int],
    ) -> None:
        self.chance = chance
        self.proxy = proxy
        self.direct = direct
        self.workflow = workflow
        self.counter = counter
        self.last = -1
        self.steps = 0
        self.running: list[tuple[Subscription[Resource], list[object]]] = []
        self.ended: list[tuple[Subscription[Resource], list[object]]] = []
        self.client = Client(
            f"ws://127.0.0.1:{proxy.port}/graphql",
            token=lambda: "t0ken",
            recovery=ErrorRecoveryPolicy(base_delay=0.001, max_delay=0.01),
            circuit_breaker=NEVER_OPEN,
            timeouts=Timeouts(close_seconds=0.5),
            offline_queue=chance.choice([None, OfflineQueue()]),
            pool=chance.choice([None, SubscriptionConnectionPool(3, subscriptions_per_connection=1)]),
        )

    async def subscribe(self) -> None:
        critical = self.chance.random() < 0.2
        builder = self.client.workflows.subscribe_resource_updates(workflow_id=self.workflow)
        updates = await (builder.critical() if critical else builder).subscribe()
        seen: list[object] = []
        if self.chance.random() < 0.5:
            updates.on_data(numbers(seen))
        else:

            async def later(resource: Resource) -> None:
                await asyncio.sleep(0)
                seen.append(number_of(resource))

            updates.on_data(later)
        self.running.append((updates, seen))

    async def publish(self) -> None:
        for _ in range(self.chance.randint(1, 5)):
            self.last = next(self.counter)
            await self.direct.workflows.create_resource(workflow_id=self.workflow, data={"n": self.last})

    async def mutate(self) -> None:
        await self.client.server_health()

    async def unsubscribe(self) -> None:
        if self.running:
            ended = self.running.pop(self.chance.randrange(len(self.running)))
            self.ended.append(ended)
            await ended[0].unsubscribe()

    async def cut(self) -> None:
        self.proxy.cut(after_bytes=self.chance.choice([None, self.chance.randrange(300)]))

    async def stall(self) -> None:
        self.proxy.stall()
        for _ in range(self.chance.randrange(20)):
            await asyncio.sleep(0)
        self.proxy.flow()

    async def renew(self) -> None:
        await self.client._parts.first._replace()

    async def cancelled(self, doing: Coroutine[Any, Any, None]) -> None:
        """Cancel it at some turn of the loop: then it ends cancelled, or it had ended."""
        task = asyncio.create_task(doing)
        for _ in range(self.chance.randrange(30)):
            await asyncio.sleep(0)
        is_cancelled = task.cancel()
        await asyncio.wait((task,))
        assert task.cancelled() is is_cancelled, f"cancelled, and ended with {task!r}"
        if not is_cancelled and (error := task.exception()) is not None:
            raise error

    async def step(self) -> None:
        self.steps += 1
        do = self.chance.choice(
            [self.subscribe, self.publish, self.mutate, self.unsubscribe, self.cut, self.stall, self.renew]
        )
        may_be_cancelled = do in (self.subscribe, self.mutate)
        with contextlib.suppress(TransportError, SubscriptionError):  # a cut may be anyone's error
            await (self.cancelled(do()) if may_be_cancelled and self.chance.random() < 0.4 else do())

    async def run(self) -> None:
        for _ in range(self.chance.randrange(4)):
            await self.subscribe()
        for _ in range(self.chance.randint(3, 20)):
            await self.step()
        if self.chance.random() < 0.5:
            await self.settle()
        doing = [asyncio.create_task(self.step()) for _ in range(self.chance.randrange(4))]
        for _ in range(self.chance.randrange(20)):
            await asyncio.sleep(0)
        await self.client.aclose()
        for result in await asyncio.gather(*doing, return_exceptions=True):
            assert result is None or isinstance(result, UsageError), repr(result)
        self.check()

    async def settle(self) -> None:
        """Each that lives gets all that was published, up to the last."""
        await self.publish()
        await until(lambda: all(seen[-1:] == [self.last] for _, seen in self.running if not _.state.is_end))

    def check(self) -> None:
        for updates, seen in (*self.running, *self.ended):
            assert updates.state.is_end, updates
            numbers_seen = [number for number in seen if isinstance(number, int)]
            assert numbers_seen == seen
            if seen:
                assert seen == list(range(numbers_seen[0], numbers_seen[0] + len(seen))), (updates, seen)
            stats = updates.stats()
            # An async handler that the end cancelled has taken an event that it did not note.
            assert stats.handled - len(seen) in (0, 1), (stats, len(seen))
            assert (stats.buffered_events, stats.buffered_bytes) == (0, 0)
        assert (self.client.metrics.active_subscriptions, self.client.metrics.buffered_bytes) == (0, 0)
        assert self.client.state == "closed"
        left = [task for task in asyncio.all_tasks() if task.get_name().startswith("circuit-breaker")]
        assert not left, left


async def test_whatever_an_application_does_nothing_is_lost_and_nothing_is_left(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with (
        Server(ServerSettings(port=0, data_dir=tmp_path)) as server,
        Client(server.url) as direct,
    ):
        workflow = (await create_review_workflow(direct)).id
        counter = itertools.count()
        subscriptions = events = steps = 0
        for seed in range(FIRST_SEED, FIRST_SEED + SEQUENCES):
            async with FaultProxy("127.0.0.1", server.port) as proxy:
                application = Application(random.Random(seed), proxy, direct, workflow, counter)  # noqa: S311 (chance)
                try:
                    await application.run()
                    await until(lambda proxy=proxy: not proxy.connections)  # type: ignore[misc]
                    errors = [r.getMessage() for r in caplog.records if r.levelname == "ERROR"]
                    assert not errors, errors
                    each = [*application.running, *application.ended]
                    steps += application.steps
                    subscriptions += len(each)
                    events += sum(len(seen) for _, seen in each)
                except BaseException as error:
                    await application.client.aclose()
                    error.add_note(f"the sequence with LIFECYCLE_SEED={seed} LIFECYCLE_SEQUENCES=1")
                    raise
    print(f"{SEQUENCES} sequences, {steps} steps, {subscriptions} subscriptions, {events} events")  # noqa: T201 (the figures, for -s and make chaos)
    if SEQUENCES >= 100:
        assert (subscriptions >= SEQUENCES, events >= SEQUENCES) == (True, True), (subscriptions, events)
