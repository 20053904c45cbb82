"""A time limit ends what is awaited as asyncio's own does, whoever else cancels the task."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import pytest

from circuit_breaker_server.graphql.time_limit import TimeLimit

Limit = Callable[[float], AbstractAsyncContextManager[object]]


@asynccontextmanager
async def ours(seconds: float) -> AsyncIterator[None]:
    with TimeLimit(seconds):
        yield


@pytest.fixture(params=[ours, asyncio.timeout], ids=["ours", "asyncio"])
def limit(request: pytest.FixtureRequest) -> Limit:
    """Both: what holds for one holds for the other."""
    made: Limit = request.param
    return made


async def forever() -> None:
    await asyncio.get_running_loop().create_future()


async def test_what_ends_in_time_gives_its_result_and_leaves_no_timer(limit: Limit) -> None:
    async with limit(0.0):
        made = 1  # without an await, the time cannot end
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert made == 1
    assert current().cancelling() == 0


async def test_what_does_not_end_in_time_is_a_timeout_and_the_task_goes_on(limit: Limit) -> None:
    with pytest.raises(TimeoutError) as raised:
        async with limit(0.001):
            await forever()
    assert isinstance(raised.value.__cause__, asyncio.CancelledError)
    assert current().cancelling() == 0
    await asyncio.sleep(0)


async def test_an_error_of_the_block_is_its_own(limit: Limit) -> None:
    with pytest.raises(KeyError):
        async with limit(30):
            raise KeyError("x")


async def test_an_error_that_takes_the_place_of_the_cancellation_is_raised(limit: Limit) -> None:
    async def failing() -> None:
        try:
            await forever()
        except asyncio.CancelledError:
            raise KeyError("x") from None

    with pytest.raises(KeyError):
        async with limit(0.001):
            await failing()
    assert current().cancelling() == 0


async def test_a_caller_that_cancels_is_not_told_of_a_timeout(limit: Limit) -> None:
    async def limited() -> None:
        async with limit(30):
            await forever()

    assert await outcome(limited, asyncio.Task.cancel) == "cancelled"


async def test_a_task_that_was_cancelled_as_well_stays_cancelled(limit: Limit) -> None:
    has_ended = asyncio.Event()

    async def limited() -> None:
        async with limit(0.001):
            try:
                await forever()
            except asyncio.CancelledError:
                has_ended.set()
                await forever()

    async def cancel_too(task: asyncio.Task[None]) -> None:
        await has_ended.wait()
        task.cancel()

    assert await outcome(limited, cancel_too) == "cancelled"


async def test_a_task_that_was_being_cancelled_before_can_have_a_timeout(limit: Limit) -> None:
    task = current()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.sleep(0)
    assert task.cancelling() == 1
    with pytest.raises(TimeoutError):
        async with limit(0.001):
            await forever()
    assert task.uncancel() == 0


async def test_limits_in_each_other_end_at_the_shorter_one(limit: Limit) -> None:
    with pytest.raises(TimeoutError):
        async with limit(30), limit(0.001):
            await forever()
    async with limit(30):
        with pytest.raises(TimeoutError):
            async with limit(0.001):
                await forever()
    assert current().cancelling() == 0


def current() -> asyncio.Task[object]:
    task = asyncio.current_task()
    assert task is not None
    return task


async def outcome(
    work: Callable[[], Awaitable[None]], act: Callable[[asyncio.Task[None]], Awaitable[None] | object]
) -> str:
    async def begun() -> None:
        await work()

    task = asyncio.create_task(begun())
    await asyncio.sleep(0)
    acted = act(task)
    if isinstance(acted, Awaitable):
        await acted
    await asyncio.wait((task,))
    if task.cancelled():
        return "cancelled"
    return type(task.exception()).__name__
