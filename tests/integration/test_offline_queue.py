"""Mutations while the server is away, on real sockets: each happens once, in order, or is given up."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from circuit_breaker_sdk import (
    Client,
    ConnectionFailed,
    OfflineQueue,
    OfflineQueueFull,
    OperationError,
    OperationTimeoutError,
    QueueOverflow,
)
from circuit_breaker_sdk.protocol.document_scan import is_mutation
from circuit_breaker_sdk.testing import Direction, FaultProxy
from circuit_breaker_server import Server, ServerSettings
from tests.integration.workflows import create_review_workflow, number_of
from tests.waiting import until


class World(NamedTuple):
    client: Client
    direct: Client
    proxy: FaultProxy
    workflow: str

    def create(self, n: int) -> asyncio.Task[object]:
        return asyncio.ensure_future(
            self.client.workflows.create_resource(workflow_id=self.workflow, data={"n": n})
        )

    async def happened(self) -> list[object]:
        return [number_of(r) for r in await self.direct.workflows.resources(workflow_id=self.workflow)]


@asynccontextmanager
async def world(tmp_path: Path, queue: OfflineQueue | None = None) -> AsyncIterator[World]:
    async with (
        Server(ServerSettings(port=0, data_dir=tmp_path)) as server,
        FaultProxy("127.0.0.1", server.port) as proxy,
        Client(f"http://127.0.0.1:{proxy.port}", offline_queue=queue or OfflineQueue()) as client,
        Client(server.url) as direct,
    ):
        yield World(client, direct, proxy, (await create_review_workflow(direct)).id)


async def test_what_is_called_while_the_server_is_away_happens_once_and_in_order(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        w.proxy.refuses = True
        calls = []
        for n in range(10):
            calls.append(w.create(n))
            await until(lambda count=n + 1: w.client._parts.executor.waiting_mutations == count)  # type: ignore[misc]
        w.proxy.refuses = False
        await asyncio.gather(*calls)
        assert await w.happened() == list(range(10))
        assert w.client._parts.executor.waiting_mutations == 0


async def test_an_answer_that_is_lost_is_asked_for_again_and_it_happens_once(
    tmp_path: Path,
) -> None:
    async with world(tmp_path) as w:
        for n in range(5):
            w.proxy.stall(Direction.TO_CLIENT)
            call = w.create(n)
            # It has happened, the answer is under way.
            async with asyncio.timeout(10):
                while n not in await w.happened():
                    pass
            w.proxy.cut()
            w.proxy.flow()
            await call
        assert await w.happened() == list(range(5))


async def test_a_refusal_of_the_server_is_an_answer(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        with pytest.raises(OperationError, match="NOT_FOUND"):
            await w.client.workflows.create_resource(workflow_id="nobody")


async def test_after_the_deadline_it_is_given_up(tmp_path: Path) -> None:
    async with world(tmp_path, OfflineQueue(deadline_seconds=1.0)) as w:
        w.proxy.refuses = True
        with pytest.raises(OperationTimeoutError, match="whole or not at all") as caught:
            await w.create(1)
        assert isinstance(caught.value.__cause__, ConnectionFailed)
        w.proxy.refuses = False
        await w.create(2)
        assert await w.happened() == [2]


async def test_a_full_queue_refuses_the_newest_or_gives_up_the_oldest(tmp_path: Path) -> None:
    for overflow, given_up in ((QueueOverflow.REJECT, 3), (QueueOverflow.DROP_OLDEST, 1)):
        async with world(tmp_path / overflow, OfflineQueue(max_operations=3, overflow=overflow)) as w:
            w.proxy.refuses = True
            calls = []
            for n in range(4):
                calls.append(w.create(n))
                count = min(n + 1, 3)
                await until(lambda c=count: w.client._parts.executor.waiting_mutations >= c)  # type: ignore[misc]
            with pytest.raises(OfflineQueueFull, match="CreateResource was not sent: 3 mutations wait"):
                await calls[given_up]
            w.proxy.refuses = False
            await asyncio.gather(*(call for call in calls if call is not calls[given_up]))
            assert await w.happened() == [n for n in range(4) if n != given_up]


async def test_one_that_is_cancelled_leaves_the_others_their_turn(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        w.proxy.refuses = True
        first, second = w.create(1), w.create(2)
        await until(lambda: w.client._parts.executor.waiting_mutations == 2)
        first.cancel()
        w.proxy.refuses = False
        await second
        assert await w.happened() == [2]


async def test_queries_do_not_wait(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        w.proxy.refuses = True
        with pytest.raises(ConnectionFailed):
            await w.client.workflows.workflows()


async def test_without_a_queue_a_mutation_fails_at_once_and_another_url_is_tried(tmp_path: Path) -> None:
    async with Server(ServerSettings(port=0, data_dir=tmp_path)) as server:
        async with Client("http://127.0.0.1:1/graphql") as client:
            with pytest.raises(ConnectionFailed, match="refused"):
                await create_review_workflow(client)
        async with Client(["http://127.0.0.1:1/graphql", server.url]) as client:
            await create_review_workflow(client)
            assert len(await client.workflows.workflows()) == 1


@pytest.mark.parametrize(
    ("document", "name", "expected"),
    [
        ("mutation { a }", None, True),
        ("mutation M($i: Int) { a(i: $i) }", "M", True),
        ("# query\nmutation M { a }", None, True),
        ("fragment F on T { mutation }\nmutation M { a { ...F } }", "M", True),
        ("query A { a } mutation B { b }", "B", True),
        ("query A { a } mutation B { b }", "A", False),
        ("{ mutation }", None, False),
        ("query Q($mutation: String) { a(b: $mutation) }", None, False),
        ('query Q { a(text: "}} mutation M {") }', None, False),
        ('query Q { a(text: """}} " mutation M {""") }', None, False),
        ("query Q { a } # mutation M { b }", None, False),
        ("subscription { a }", None, False),
    ],
)
def test_what_changes_something_is_told_from_what_reads(
    document: str, name: str | None, expected: bool
) -> None:
    assert is_mutation(document, name) is expected
