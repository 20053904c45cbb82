"""Polls of the whole server: workflows and completions, beside WebSockets, and while it stops."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from circuit_breaker_server import ServerSettings
from circuit_breaker_server.endpoints import endpoints
from circuit_breaker_server.endpoints.long_poll.polls import Polls
from tests.server.gateway.worlds import Payload, assert_chained, resume_of
from tests.server.operations import CREATE_RESOURCE, CREATE_WORKFLOW, EVENTS, EXECUTE, WORKFLOW
from tests.server.polling_stage import Result, operation, poll_one
from tests.server.site import Site, site
from tests.waiting import until

STREAM = "subscription($id: String!) { llmStream(requestId: $id) { delta isComplete } }"
COMPLETE = "mutation($input: LlmChatCompletionInput!) { llmChatCompletion(input: $input) { __typename } }"


async def poll(running: Site, asked: dict[str, object], *, wait_ms: int = 25_000) -> Result:
    return await poll_one(running.http, running.server.url + "/poll", asked, wait_ms=wait_ms)


async def flip(running: Site, resource: str, *activities: str) -> None:
    for activity in activities:
        await running.made(EXECUTE, {"resourceId": resource, "activityId": activity})


async def test_a_chain_that_changes_between_polls_and_sockets_loses_and_doubles_nothing(
    tmp_path: Path,
) -> None:
    async with site(tmp_path, ring_size=4, poll_bytes=700) as running:
        workflow, _ = await running.made(CREATE_WORKFLOW, WORKFLOW)
        resource, _ = await running.made(CREATE_RESOURCE, {"workflowId": workflow})
        start = after = (await poll(running, operation(EVENTS, {"id": workflow}))).after
        chain: list[Payload] = []
        reference = await running.open()
        await reference.init()
        reference.subscribe("1", EVENTS, {"id": workflow}, after=start)
        assert await reference.live("1") == start
        for _ in range(3):
            await flip(running, resource, "ping", "pong", "ping", "pong")
            for _ in range(2):
                told = await poll(running, operation(EVENTS, {"id": workflow}, after=after))
                assert told.events
                chain += told.events
                after = told.after
            await flip(running, resource, "ping", "pong")
            client = await running.open()
            await client.init()
            client.subscribe("1", EVENTS, {"id": workflow}, after=after)
            assert await client.live("1") == after
            for _ in range(3):
                chain.append(await client.next_of("1"))
            after = resume_of(chain[-1])[0]
            await client.leave()
        while len(chain) < 36:
            told = await poll(running, operation(EVENTS, {"id": workflow}, after=after))
            chain += told.events
            after = told.after
        assert_chained(chain, start)
        assert chain == [await reference.next_of("1") for _ in range(36)]


async def test_a_cursor_of_a_poll_outlives_the_server(tmp_path: Path) -> None:
    async with site(tmp_path) as running:
        workflow, _ = await running.made(CREATE_WORKFLOW, WORKFLOW)
        start = (await poll(running, operation(EVENTS, {"id": workflow}))).after
        resource, _ = await running.made(CREATE_RESOURCE, {"workflowId": workflow})
    async with site(tmp_path) as running:
        await flip(running, resource, "ping")
        told = await poll(running, operation(EVENTS, {"id": workflow}, after=start))
        assert len(told.events) == 3
        assert_chained(told.events, start)


async def test_a_completion_is_polled_to_its_end_and_one_that_is_not_streamed_is_refused(
    tmp_path: Path,
) -> None:
    async with site(tmp_path) as running:
        started = await poll(running, operation(STREAM, {"id": "c-1"}))
        for id_, stream in (("c-1", True), ("c-2", False)):
            given = {
                "requestId": id_,
                "model": "echo",
                "messages": [{"role": "USER", "content": "one two three"}],
                "stream": stream,
            }
            answer = await running.post(COMPLETE, {"input": given})
            assert "errors" not in answer, answer
        told, events = started, list[Payload]()
        while not told.done:
            told = await poll(running, operation(STREAM, {"id": "c-1"}, after=told.after))
            events += told.events
        assert "".join(str(event["data"]["llmStream"]["delta"] or "") for event in events) == "one two three"
        assert_chained(events, started.after)
        refused = await poll(running, operation(STREAM, {"id": "c-2"}))
        assert (refused.done, refused.extensions) == (True, {"code": "INVALID_INPUT"})


async def test_a_server_that_stops_answers_the_polls_that_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Polls] = []

    def remembered(*given: Any, **named: Any) -> Polls:
        made.append(Polls(*given, **named))
        return made[-1]

    monkeypatch.setattr(endpoints, "Polls", remembered)
    async with site(tmp_path) as running:
        workflow, _ = await running.made(CREATE_WORKFLOW, WORKFLOW)
        start = (await poll(running, operation(EVENTS, {"id": workflow}))).after
        waiting = asyncio.create_task(poll(running, operation(EVENTS, {"id": workflow}, after=start)))
        await until(lambda: len(made[0]) == 1)
        await running.server.aclose()
        assert await waiting == Result(events=[], cursor=start, done=False)


def test_the_bound_of_an_answer_is_a_setting(tmp_path: Path) -> None:
    assert ServerSettings(data_dir=tmp_path).poll_bytes == 1024 * 1024
