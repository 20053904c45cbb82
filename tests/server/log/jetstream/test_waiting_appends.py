"""Which appends go together in one batch."""

from __future__ import annotations

import asyncio
from collections import deque

from circuit_breaker_server.log.jetstream.waiting_appends import Append, take_group
from tests.server.log.jetstream.log_stage import new


def waiting(*wanted: tuple[str, int | None]) -> deque[Append]:
    loop = asyncio.get_running_loop()
    return deque(Append(new(name, expected=expected), loop.create_future()) for name, expected in wanted)


def take(queue: deque[Append], **last: int) -> tuple[list[str], list[str], list[str]]:
    group, conflicts = take_group(queue, last_offset_of=last.get)
    names = [[append.record.subject for append in appends] for appends in (group, conflicts, queue)]
    return names[0], names[1], names[2]


async def test_a_subject_has_one_expectation_in_a_batch() -> None:
    queue = waiting(("a", 0), ("a", 0), ("b", 0), ("a", None), ("b", 0))
    assert take(queue) == (["a", "b"], [], ["a", "a", "b"])
    assert take(queue) == (["a", "b"], [], ["a"])
    assert take(queue) == (["a"], [], [])


async def test_records_without_an_expectation_share_a_batch() -> None:
    queue = waiting(("a", None), ("a", None), ("b", 0), ("a", 3), ("a", None))
    assert take(queue) == (["a", "a", "b"], [], ["a", "a"])
    assert take(queue) == (["a"], [], ["a"])


async def test_a_conflict_that_the_tail_has_shown_is_not_sent() -> None:
    assert take(waiting(("a", 4), ("a", 5), ("b", 1)), a=5, b=2) == (["a"], ["a", "b"], [])


async def test_a_settled_append_is_left_out() -> None:
    queue = waiting(("a", 0), ("a", 0))
    queue[0].answer.cancel()
    assert take(queue) == (["a"], [], [])


async def test_a_batch_is_bounded_in_messages() -> None:
    queue = waiting(*[(f"s{i}", 0) for i in range(300)])
    group, _, _ = take(queue)
    assert (len(group), len(queue)) == (256, 44)
