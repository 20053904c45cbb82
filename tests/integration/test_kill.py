"""What was acknowledged survives SIGKILL; what was refused never appears; nothing is half there."""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from pathlib import Path

import aiohttp
import pytest

from tests.integration.live_server import ServeProcess, serving

RESOURCES = 20
CALLS = 1000
KILL_AFTER = 300

CREATE_WORKFLOW = """mutation($input: WorkflowDefinitionInput!) { createWorkflow(input: $input) { id } }"""
CREATE_RESOURCE = """mutation($input: ResourceCreateInput!) { createResource(input: $input) { id } }"""
EXECUTE = """mutation($input: ActivityExecuteInput!) { executeActivity(input: $input) { id state } }"""
RESOURCES_QUERY = (
    """{ resources { id state data history { activity fromState toState data } } workflows { id } }"""
)

WORKFLOW = {
    "name": "Ping-pong",
    "initialState": "left",
    "states": [
        {"id": name, "name": name.title(), "workflowId": "", "stateType": "NORMAL"}
        for name in ("left", "right")
    ],
    "activities": [
        {"id": "ping", "fromStates": ["left"], "toState": "right", "conditions": []},
        {"id": "pong", "fromStates": ["right"], "toState": "left", "conditions": []},
    ],
}


class Answer(dict[str, object]):
    """A decoded GraphQL answer."""

    @property
    def offset(self) -> int:
        cursor = self["extensions"]["resume"]["cursor"]  # type: ignore[index]  # JSON, shape known here
        return int(cursor.split(".")[1])


async def post(http: aiohttp.ClientSession, url: str, query: str, variables: object = None) -> Answer:
    body, headers = {"query": query, "variables": variables}, {"Resume-Version": "1"}
    async with http.post(url, json=body, headers=headers) as response:
        return Answer(json.loads(await response.read()))


async def _set_up(http: aiohttp.ClientSession, url: str) -> list[str]:
    created = await post(http, url, CREATE_WORKFLOW, {"input": WORKFLOW})
    workflow = created["data"]["createWorkflow"]["id"]  # type: ignore[index]  # as above
    answers = [
        await post(http, url, CREATE_RESOURCE, {"input": {"workflowId": workflow}}) for _ in range(RESOURCES)
    ]
    return [a["data"]["createResource"]["id"] for a in answers]  # type: ignore[index]  # as above


class Ledger:
    """What the callers know: which marks were acknowledged, refused, or left without an answer."""

    def __init__(self) -> None:
        self.acknowledged: dict[str, list[int]] = defaultdict(list)
        self.refused: set[int] = set()
        self.unknown: set[int] = set()
        self.offsets: list[int] = []
        self.answers = 0
        self.enough = asyncio.Event()

    async def drive(self, http: aiohttp.ClientSession, url: str, resource: str, marks: list[int]) -> None:
        """Call one resource's activities in turn; every fifth call is one that must be refused."""
        state = "left"
        for mark in marks:
            allowed, forbidden = ("ping", "pong") if state == "left" else ("pong", "ping")
            activity = forbidden if mark % 5 == 4 else allowed
            variables = {"input": {"resourceId": resource, "activityId": activity, "data": {"mark": mark}}}
            try:
                answer = await post(http, url, EXECUTE, variables)
            except (aiohttp.ClientError, ConnectionError):
                self.unknown.add(mark)
                return
            self.answers += 1
            if answer.get("errors"):
                assert activity == forbidden, answer
                self.refused.add(mark)
            else:
                assert activity == allowed, answer
                state = "right" if state == "left" else "left"
                self.acknowledged[resource].append(mark)
                self.offsets.append(answer.offset)
            if self.answers >= KILL_AFTER:
                self.enough.set()


def _check_whole(resource: dict[str, object], ledger: Ledger) -> None:
    history = resource["history"]
    assert isinstance(history, list)
    identity = str(resource["id"])
    marks = [entry["data"]["mark"] for entry in history]
    acknowledged = ledger.acknowledged[identity]
    assert marks[: len(acknowledged)] == acknowledged, "an acknowledged change is missing or out of order"
    extra = marks[len(acknowledged) :]
    assert len(extra) <= 1, "more than the one call without an answer is there"
    assert set(extra) <= ledger.unknown
    assert not set(marks) & ledger.refused, "a refused change is there"
    # Whole: state, data and history of the last change are there together.
    last = history[-1] if history else None
    assert resource["state"] == (last["toState"] if last else "left")
    assert resource["data"] == ({"mark": last["data"]["mark"]} if last else {})


@pytest.mark.timeout(180)
async def test_acknowledged_changes_survive_sigkill_and_refused_ones_never_appear(tmp_path: Path) -> None:
    ledger = Ledger()
    with serving(tmp_path) as server:
        async with aiohttp.ClientSession() as http:
            resources = await _set_up(http, server.url)
            share = CALLS // RESOURCES
            async with asyncio.TaskGroup() as group:
                for i, resource in enumerate(resources):
                    marks = list(range(i * share, (i + 1) * share))
                    group.create_task(ledger.drive(http, server.url, resource, marks))
                await ledger.enough.wait()
                server.kill()
    assert KILL_AFTER <= ledger.answers < CALLS, "the kill came in the middle"
    assert ledger.refused
    assert len(set(ledger.offsets)) == len(ledger.offsets)

    restarted = ServeProcess(tmp_path)
    try:
        async with aiohttp.ClientSession() as http:
            answer = await post(http, restarted.url, RESOURCES_QUERY)
            found = answer["data"]["resources"]  # type: ignore[index]  # as above
            assert {r["id"] for r in found} == set(resources)
            for resource in found:
                _check_whole(resource, ledger)
            later = []
            for resource in found:
                activity = "ping" if resource["state"] == "left" else "pong"
                variables = {
                    "input": {"resourceId": resource["id"], "activityId": activity, "data": {"mark": -1}}
                }
                later.append((await post(http, restarted.url, EXECUTE, variables)).offset)
        assert min(later) > max(ledger.offsets), "an offset was used twice"
        assert len(set(later)) == len(later)
    finally:
        restarted.end()


async def test_sigterm_ends_the_server_cleanly_and_a_restart_has_everything(tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        async with aiohttp.ClientSession() as http:
            resources = await _set_up(http, server.url)
        assert server.stop() == 0
    with serving(tmp_path) as server:
        async with aiohttp.ClientSession() as http:
            answer = await post(http, server.url, RESOURCES_QUERY)
        assert server.stop() == 0
    assert {r["id"] for r in answer["data"]["resources"]} == set(resources)  # type: ignore[index]  # as above
