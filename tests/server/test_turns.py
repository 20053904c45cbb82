"""Who has the event loop, and for how long: one slice a turn, principals one after the other."""

from __future__ import annotations

import asyncio

import pytest

from circuit_breaker_server.scheduling import SLICE_SECONDS, Gate, Slices, Turns
from tests.server.counted_futures import count_comparisons


async def test_those_who_wait_have_their_turns_by_key_and_not_by_number() -> None:
    turns, order = Turns(), list[str]()
    assert turns.take_now()

    async def work(key: str, name: str) -> None:
        async with turns.of(key):
            order.append(name)
            await asyncio.sleep(0)

    tasks = [asyncio.create_task(work("flood", f"flood {n}")) for n in range(4)]
    tasks += [asyncio.create_task(work("ada", "ada")), asyncio.create_task(work("ben", "ben"))]
    await asyncio.sleep(0)
    assert turns.waiting == 6
    assert not turns.take_now()
    turns.give_on()
    await asyncio.gather(*tasks)
    assert order == ["flood 0", "ada", "ben", "flood 1", "flood 2", "flood 3"]
    assert turns.take_now()


@pytest.mark.parametrize("is_given", [False, True])
async def test_who_gives_up_waiting_keeps_nobody_from_the_turn(is_given: bool) -> None:
    turns = Turns()
    assert turns.take_now()
    first, second = (asyncio.create_task(turns.take(key)) for key in ("ada", "ben"))
    await asyncio.sleep(0)
    if is_given:
        turns.give_on()
    first.cancel()
    await asyncio.wait((first,))
    if not is_given:
        turns.give_on()
    await second
    assert turns.waiting == 0
    turns.give_on()
    assert turns.take_now()


async def test_those_who_left_while_they_waited_are_passed_over() -> None:
    turns = Turns()
    assert turns.take_now()
    waiting = [asyncio.create_task(turns.take(key)) for key in ("ada", "ada", "ben")]
    await asyncio.sleep(0)
    for task in waiting:
        task.cancel()
    turns.give_on()  # before the tasks hear of it
    assert {type(each) for each in await asyncio.gather(*waiting, return_exceptions=True)} == {
        asyncio.CancelledError
    }
    assert turns.take_now()


async def test_several_may_have_a_turn_at_once() -> None:
    turns = Turns(2)
    assert (turns.take_now(), turns.take_now(), turns.take_now()) == (True, True, False)
    waiting = asyncio.create_task(turns.take("ada"))
    await asyncio.sleep(0)
    turns.give_on()
    await waiting
    turns.give_on()
    assert (turns.take_now(), turns.take_now()) == (True, False)


async def test_one_slice_is_done_in_a_turn_of_the_loop() -> None:
    slices = Slices()
    loop_turns, at = 0, list[int]()

    async def count() -> None:
        nonlocal loop_turns
        while len(at) < 12:
            loop_turns += 1
            await asyncio.sleep(0)

    async def work(key: str) -> None:
        for _ in range(4):
            await slices.take(key)
            at.append(loop_turns)

    await asyncio.gather(count(), *(work(key) for key in ("a", "b", "c")))
    assert len(set(at)) == len(at)


async def test_a_long_list_gives_way_after_each_slice_and_is_whole() -> None:
    now = 0.0

    def clock() -> float:
        return now

    def items() -> list[int | None]:
        return [None if n % 3 == 0 else n for n in range(20)]

    slices, seen, turns_of_others = Slices(clock=clock), list[int](), 0

    async def others() -> None:
        nonlocal turns_of_others
        while len(seen) < 13:
            await slices.take("others")
            turns_of_others += 1

    waiting = asyncio.create_task(others())
    async for item in slices.over(items(), "ada"):
        seen.append(item)
        now += SLICE_SECONDS
    await waiting
    assert seen == [n for n in range(20) if n % 3]
    assert turns_of_others >= 6


async def test_requests_that_arrive_together_are_let_in_over_several_turns_of_the_loop() -> None:
    now = 0.0

    def clock() -> float:
        return now

    gate, loop_turn, entered = Gate(clock=clock), 0, list[tuple[int, str]]()

    async def count() -> None:
        nonlocal loop_turn
        while len(entered) < 12:
            loop_turn += 1
            await asyncio.sleep(0)

    async def work(key: str) -> None:
        nonlocal now
        if not gate.enter_now():
            await gate.enter(key)
        entered.append((loop_turn, key))
        now += SLICE_SECONDS * 0.6

    await asyncio.gather(count(), *(work("flood") for _ in range(10)), work("ada"), work("ben"))
    turns = [turn for turn, _ in entered]
    assert max(turns.count(turn) for turn in turns) == 2
    assert {key for _, key in entered[:8]} == {"flood", "ada", "ben"}


async def test_a_request_is_let_in_however_long_the_turns_of_the_loop_are() -> None:
    now = 0.0

    def clock() -> float:
        nonlocal now
        now += SLICE_SECONDS * 10  # each look at the clock is in another slice
        return now

    gate = Gate(clock=clock)
    async with asyncio.timeout(10):
        await asyncio.gather(*(gate.enter(key) for key in ("ada", "ben", "ada")))


async def test_work_beside_the_loop_is_done_one_at_a_time_by_key() -> None:
    slices, order = Slices(), list[str]()
    names = [("flood", "flood 0"), ("flood", "flood 1"), ("ada", "ada")]

    def note(name: str) -> str:
        order.append(name)
        return name

    try:
        tasks = [asyncio.create_task(slices.beside(lambda name=name: note(name), key)) for key, name in names]  # type: ignore[misc]  # a default binds the name
        assert await asyncio.gather(*tasks) == [name for _, name in names]
    finally:
        slices.close()
    assert order in (["flood 0", "ada", "flood 1"], ["flood 0", "flood 1", "ada"])


async def test_leaving_takes_no_look_at_the_others_that_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    futures = count_comparisons(monkeypatch)
    turns = Turns()
    assert turns.take_now()
    waiting = [asyncio.create_task(turns.take("ada")) for _ in range(200)]
    await asyncio.sleep(0)
    for task in reversed(waiting):
        task.cancel()
    await asyncio.wait(waiting)
    assert turns.waiting == 0
    assert futures.comparisons <= len(waiting)
