"""Mutations that wait for the server: each leaves the queue by itself, however many wait."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any, final

import pytest

from circuit_breaker_sdk import OfflineQueue, QueueOverflow
from circuit_breaker_sdk.domains.offline_queue import MutationQueue
from circuit_breaker_sdk.errors import OfflineQueueFull
from tests.waiting import until


@final
class _CountedList(list[Any]):
    """A list that counts how often all of it is looked at."""

    looks = 0

    def __iter__(self) -> Iterator[Any]:
        self.looks += 1
        return super().__iter__()


async def test_a_mutation_leaves_the_queue_without_a_look_at_all_that_wait() -> None:
    queue = MutationQueue(OfflineQueue(max_operations=100))
    queue._waiting = waiting = _CountedList()

    async def is_unreachable() -> None:
        return None

    tasks = [asyncio.create_task(queue.run("create", is_unreachable)) for _ in range(100)]
    await until(lambda: len(queue) == 100)
    for task in tasks[50:75]:
        task.cancel()
    await asyncio.wait(tasks[50:75])
    assert len(queue) == 75
    queue.close()
    ends = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(end, BaseException) for end in ends)
    assert len(queue) == 0
    assert waiting.looks == 0


async def test_several_that_come_at_once_drop_as_many_and_never_one_that_is_under_way() -> None:
    queue = MutationQueue(OfflineQueue(max_operations=3, overflow=QueueOverflow.DROP_OLDEST))
    is_away = True

    async def send() -> bytes | None:
        return None if is_away else b"done"

    tasks = [asyncio.create_task(queue.run("create", send))]
    await until(lambda: len(queue) == 1)
    tasks += [asyncio.create_task(queue.run("create", send)) for _ in range(6)]
    await asyncio.wait(tasks[1:5])
    assert len(queue) == 3
    is_away = False
    ends = await asyncio.gather(*tasks, return_exceptions=True)
    assert [isinstance(end, OfflineQueueFull) for end in ends] == [
        False,
        True,
        True,
        True,
        True,
        False,
        False,
    ]
    assert [ends[0], *ends[5:]] == [b"done"] * 3
    assert len(queue) == 0


async def test_where_all_are_under_way_the_newest_is_refused() -> None:
    queue = MutationQueue(OfflineQueue(max_operations=1, overflow=QueueOverflow.DROP_OLDEST))

    async def is_unreachable() -> None:
        return None

    first = asyncio.create_task(queue.run("create", is_unreachable))
    await until(lambda: len(queue) == 1)
    with pytest.raises(OfflineQueueFull):
        await queue.run("create", is_unreachable)
    assert len(queue) == 1
    first.cancel()
    await asyncio.wait([first])
