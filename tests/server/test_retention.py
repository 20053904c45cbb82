"""A whole server that trims its log: queries answer as before, streams are whole or say that they are not."""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec
import pytest

from circuit_breaker_server import ServerSettings
from tests.server.operations import CREATE_RESOURCE, CREATE_WORKFLOW, EXECUTE, UPDATES, WORKFLOW
from tests.server.site import Site, site
from tests.server.stage import Client

EVERYTHING = """{
  workflows { id states { id } }
  resources { id state data metadata updatedAt history { activity fromState toState timestamp } }
}"""
COMPLETE = "mutation($input: LlmChatCompletionInput!) { llmChatCompletion(input: $input) { __typename } }"
STREAM = "subscription($id: String!) { llmStream(requestId: $id) { delta isComplete } }"
NATS_RESOURCE = (
    "query($id: String!) { natsResource(id: $id) { natsSequence activityHistory { activityId } } }"
)
ALL_UPDATES = "subscription { resourceUpdates { id state } }"


class _GapError(msgspec.Struct):
    extensions: dict[str, str]


async def reason_of(running: Site, cursor: str) -> str | None:
    """Resume after a cursor on a socket of its own; return why that is not possible, if it is not."""
    client = await running.open()
    await client.init()
    client.subscribe("r", ALL_UPDATES, after=cursor)
    message = await client.receive()
    await client.leave()
    running.clients.remove(client)
    if message["type"] != "error":
        return None
    (error,) = msgspec.convert(message["payload"], list[_GapError])
    return error.extensions["reason"]


async def until_trimmed(running: Site, cursor: str) -> None:
    async with asyncio.timeout(20):
        while (reason := await reason_of(running, cursor)) is None:
            pass
    assert reason == "trimmed"


async def play(
    running: Site, resource: str, count: int, activities: tuple[str, ...] = ("ping", "pong")
) -> list[str]:
    """Go to and fro; return the cursors of the answers."""
    return [
        (
            await running.made(
                EXECUTE, {"resourceId": resource, "activityId": activities[i % len(activities)]}
            )
        )[1]
        for i in range(count)
    ]


async def next_state(client: Client) -> object:
    """Return the state that the next event tells of; live signals do not count."""
    while (message := await client.receive())["type"] == "ping":
        pass
    payload = msgspec.convert(message["payload"], dict[str, dict[str, dict[str, str]]], strict=False)
    return payload["data"]["resourceUpdates"]["state"]


async def test_trimmed_and_restarted_it_answers_as_before_and_tells_what_is_gone(tmp_path: Path) -> None:
    limits = {"keep_records": 4, "trim_every_seconds": 0.01}
    async with site(tmp_path, **limits) as running:  # type: ignore[arg-type]  # numbers
        workflow, _ = await running.made(CREATE_WORKFLOW, WORKFLOW)
        quiet, _ = await running.made(CREATE_RESOURCE, {"workflowId": workflow})
        busy, created = await running.made(CREATE_RESOURCE, {"workflowId": workflow})
        idle = await running.open()
        await idle.init()
        idle.subscribe("q", UPDATES, {"id": quiet})
        await idle.live("q")
        cursors = await play(running, busy, 30)
        await until_trimmed(running, created)
        assert await reason_of(running, cursors[-1]) is None
        assert await reason_of(running, cursors[-3]) is None
        await play(running, quiet, 1)
        assert await next_state(idle) == "right", "who only waited is not disturbed"
        last = (await play(running, busy, 1))[0]
        before = await running.post(EVERYTHING)
        nats_before = await running.post(NATS_RESOURCE, {"id": busy})
        assert "errors" not in before, before
        assert "errors" not in nats_before, nats_before
    async with site(tmp_path, **limits) as running:  # type: ignore[arg-type]  # numbers
        assert await running.post(EVERYTHING) == before
        assert await running.post(NATS_RESOURCE, {"id": busy}) == nats_before
        assert await reason_of(running, created) == "trimmed"
        assert await reason_of(running, cursors[0]) == "trimmed"
        client = await running.open()
        await client.init()
        client.subscribe("b", UPDATES, {"id": busy}, after=last)
        await client.live("b")
        await play(running, busy, 1, ("pong",))
        assert await next_state(client) == "left"
        await until_trimmed(running, cursors[-3])


async def test_a_stream_of_a_completion_is_read_again_while_it_is_kept_and_not_found_after(
    tmp_path: Path,
) -> None:
    given = {
        "requestId": "r",
        "model": "echo",
        "stream": True,
        "messages": [{"role": "user", "content": "a b"}],
    }
    async with site(tmp_path) as running:
        answer = await running.post(COMPLETE, {"input": given})
        assert "errors" not in answer, answer
        client = await running.open()
        await client.init()
        client.subscribe("s", STREAM, {"id": "r"})
        await client.live("s")
        while (message := await client.receive())["type"] != "complete":
            assert message["type"] == "next"
    async with site(tmp_path, keep_records=1, trim_every_seconds=0.01) as running:  # type: ignore[arg-type]  # numbers
        workflow, _ = await running.made(CREATE_WORKFLOW, WORKFLOW)
        resource, created = await running.made(CREATE_RESOURCE, {"workflowId": workflow})
        await play(running, resource, 2)
        await until_trimmed(running, created)
        client = await running.open()
        await client.init()
        client.subscribe("s", STREAM, {"id": "r"})
        error = await client.error_of("s")
        assert "no longer kept" in str(error["message"])
        assert error["extensions"] == {"code": "NOT_FOUND"}


async def test_a_log_of_which_nothing_is_kept_goes_on_after_a_restart(tmp_path: Path) -> None:
    limits = {"keep_seconds": 1e-6, "trim_every_seconds": 0.01}
    async with site(tmp_path, **limits) as running:  # type: ignore[arg-type]  # numbers
        workflow, _ = await running.made(CREATE_WORKFLOW, WORKFLOW)
        resource, created = await running.made(CREATE_RESOURCE, {"workflowId": workflow})
        (last,) = await play(running, resource, 1)
        await until_trimmed(running, created)
        assert await reason_of(running, last) is None, "behind the last event nothing can be missing"
    async with site(tmp_path) as running:
        client = await running.open()
        await client.init()
        client.subscribe("u", UPDATES, {"id": resource}, after=last)
        assert await client.live("u") == last
        await running.made(EXECUTE, {"resourceId": resource, "activityId": "pong"})
        assert await next_state(client) == "left"


@pytest.mark.parametrize("name", ["keep_seconds", "keep_bytes", "keep_records", "trim_every_seconds"])
def test_a_limit_that_is_not_positive_is_refused(tmp_path: Path, name: str) -> None:
    for value in (0, -1, float("nan")):
        with pytest.raises(ValueError, match=f"{name} must be greater than 0"):
            ServerSettings(data_dir=tmp_path, **{name: value})  # type: ignore[arg-type]  # a number
