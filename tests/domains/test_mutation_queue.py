"""Mutations that wait for the server: each leaves the queue by itself, however many wait."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any, final

from circuit_breaker_sdk import OfflineQueue
from circuit_breaker_sdk.domains.offline_queue import MutationQueue
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
