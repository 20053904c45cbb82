"""A mutation that is cancelled, or whose server is killed, at any await, happened whole or not."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping

import pytest

from circuit_breaker_server.graphql.root_fields import MUTATIONS
from tests.server.cancelled_worlds import (
    Before,
    CancelledWorld,
    awaited,
    before_each_mutation,
    running,
    still,
)

KEYS = (None, "a-key")
NOT_REPLAYED = {
    "initiateMcpOAuth",  # its answer is a secret
    "evaluateRule",  # makes no record
}
REFUSED_AFTER_A_CRASH = {
    "llmChatCompletion": b"CONFLICT",  # it had begun, and is never run twice under its key
    "completeMcpOAuth": b"AUTHENTICATION_FAILED",  # its state is used up: begin anew
    "initiateMcpOAuth": b"IDEMPOTENCY_ANSWER_SECRET",
    "cancelAgentExecution": b"CONFLICT",  # the restart has ended the run
}


@pytest.fixture(scope="module", name="befores")
def _befores(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Before]:
    return asyncio.run(before_each_mutation(tmp_path_factory.mktemp("every") / "data"))


async def whole(
    before: Before, key: str | None
) -> tuple[bytes, dict[str, object], dict[str, object], list[str]]:
    """Execute a mutation to its end; return the answer, the world before and after it, and its awaits."""
    with still():
        async with running(CancelledWorld.of(before)) as world:
            variables = await world.prepared()
            at_first = await world.observed()
            task = asyncio.ensure_future(world.ask(before.query, variables, key=key))
            awaits: dict[str, None] = {}
            while not task.done():
                await asyncio.sleep(0)
                awaits.update(dict.fromkeys(places(world)))
            await world.settle()
            assert world.faults() == []
            return await task, at_first, await world.observed(), list(awaits)


def places(world: CancelledWorld) -> list[str]:
    return [awaited(task) for task in world.engine.commands._running]


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("name", sorted(MUTATIONS))
async def test_a_caller_cancelled_at_any_await_leaves_all_of_a_mutation_or_nothing(
    befores: Mapping[str, Before], name: str, key: str | None
) -> None:
    before = befores[name]
    answer, at_first, at_last, awaits = await whole(before, key)
    assert b'"errors"' not in answer, answer
    cut: dict[str, None] = {}
    turns = 0
    while True:
        with still():
            async with running(CancelledWorld.of(before)) as world:
                variables = await world.prepared()
                task = asyncio.ensure_future(world.ask(before.query, variables, key=key))
                for _ in range(turns):
                    await asyncio.sleep(0)
                if task.done():
                    break
                cut.update(dict.fromkeys(places(world)))
                task.cancel()
                await asyncio.wait((task,))
                await world.settle()
                assert task.cancelled()
                assert world.faults() == [], turns
                found = await world.observed()
                assert found in (at_first, at_last), (turns, list(cut))
                if found == at_last and key is not None and name not in NOT_REPLAYED:
                    assert await world.ask(before.query, variables, key=key) == answer
                    await world.settle()
                    assert await world.observed() == at_last
        turns += 1
    assert list(cut) == awaits
    sys.stdout.write(f"{name} (key {key}): {turns} turns, {len(awaits)} awaits: {', '.join(awaits)}\n")


@pytest.mark.parametrize("name", sorted(MUTATIONS))
async def test_a_server_killed_at_any_await_has_after_its_restart_all_that_follows_from_the_records(
    befores: Mapping[str, Before], name: str
) -> None:
    before = befores[name]
    _, _, _, awaits = await whole(before, "a-key")
    cut: dict[str, None] = {}
    turns = 0
    while True:
        with still():
            async with running(CancelledWorld.of(before)) as world:
                variables = await world.prepared()
                task = asyncio.ensure_future(world.ask(before.query, variables, key="a-key"))
                for _ in range(turns):
                    await asyncio.sleep(0)
                cut.update(dict.fromkeys(places(world)))
                is_done, left = task.done(), world.killed()
                task.cancel()
                await asyncio.wait((task,))
            async with running(left):
                assert left.faults() == [], (turns, list(cut))
                again = await left.ask(before.query, variables, key="a-key")
                await left.settle()
                assert b'"errors"' not in again or REFUSED_AFTER_A_CRASH.get(name, b"?") in again, (
                    turns,
                    again,
                )
                assert left.faults() == [], (turns, list(cut))
        if is_done:
            break
        turns += 1
    assert list(cut) == awaits
