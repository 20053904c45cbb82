"""The examples run as they stand, against a real server; the endless ones until a real Ctrl-C."""

from __future__ import annotations

import asyncio
import contextlib
import re
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from circuit_breaker_sdk import Client
from circuit_breaker_sdk.types import ChatMessageInput
from circuit_breaker_server import Server, ServerSettings
from tests.integration.workflows import create_review_workflow

EXAMPLES = Path(__file__).parents[2] / "examples"
PATIENCE_SECONDS = 30.0

FINITE = {
    "first.py": ["review", "approved"],
    "workflow_events.py": ["RESOURCE_CREATED", "ACTIVITY_EXECUTED", "RESOURCE_STATE_CHANGED"],
    "agent_executions.py": ["STARTED {'input': {'subject': 'Hello'}}", "PROGRESS", "COMPLETED"],
    "llm_stream.py": ["One call, no race, every piece in order.", "16 tokens, 0.000024 USD"],
    "mcp_server_status.py": ["UNKNOWN -> STARTING", "STARTING -> ERROR", "does not accept connections"],
    "mcp_session_events.py": ["CREATED ada ACTIVE", "REVOKED ada REVOKED"],
    "cost_updates.py": ["BUDGET_RESET", "COST_INCURRED: +0.000018 USD for echo/echo", "BUDGET_EXHAUSTED"],
}
ENDLESS = {"resource_and_llm.py", "workflow_and_costs.py"}
FORMS = ["", "blocking/"]
ONLY_BLOCKING = {"blocking/first.py": ["nothing more"]}


@contextlib.asynccontextmanager
async def serving(path: Path) -> AsyncIterator[Server]:
    async with Server(ServerSettings(port=0, data_dir=path)) as server:
        yield server


@contextlib.asynccontextmanager
async def running(name: str, *arguments: str) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-W",
        "error",
        str(EXAMPLES / name),
        *arguments,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def ended(process: asyncio.subprocess.Process) -> str:
    """Wait for a good end; return what was printed."""
    out, err = await asyncio.wait_for(process.communicate(), PATIENCE_SECONDS)
    assert (process.returncode, err.decode()) == (0, "")
    return out.decode()


async def line(process: asyncio.subprocess.Process) -> str:
    assert process.stdout is not None
    return (await asyncio.wait_for(process.stdout.readline(), PATIENCE_SECONDS)).decode().strip()


@pytest.mark.parametrize("form", FORMS)
def test_every_example_is_run_and_short(form: str) -> None:
    assert {path.name for path in (EXAMPLES / form).glob("*.py")} == FINITE.keys() | ENDLESS
    for path in (EXAMPLES / form).glob("*.py"):
        assert len(path.read_text().splitlines()) <= 40, path.name


def test_no_blocking_example_uses_asyncio() -> None:
    for path in (EXAMPLES / "blocking").glob("*.py"):
        assert re.findall(r"import asyncio|async |await ", path.read_text()) == [], path.name


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", FINITE)
async def test_it_prints_what_it_promises(name: str, form: str, tmp_path: Path) -> None:
    async with serving(tmp_path) as server, running(form + name, server.url) as process:
        printed = await ended(process)
    at = 0
    for expected in FINITE[name] + ONLY_BLOCKING.get(form + name, []):
        at = printed.find(expected, at)
        assert at >= 0, f"{expected!r} is not in {printed!r}, in this order"


@pytest.mark.parametrize("form", FORMS)
async def test_a_resource_and_a_completion_are_followed_until_interrupted(form: str, tmp_path: Path) -> None:
    async with serving(tmp_path) as server, Client(server.url) as client:
        workflow = await create_review_workflow(client)
        resource = await client.workflows.create_resource(workflow_id=workflow.id)
        async with running(f"{form}resource_and_llm.py", server.url, resource.id, "r1") as process:
            assert await line(process) == "following"
            await client.workflows.execute_activity(resource_id=resource.id, activity_id="submit")
            assert await line(process) == "resource is review"
            await client.llm.chat_completion(
                model="echo",
                messages=[ChatMessageInput(role="user", content="a b")],
                stream=True,
                request_id="r1",
            )
            assert [await line(process) for _ in range(4)] == ["chunk:", "chunk: a", "chunk: b", "chunk:"]
            process.send_signal(signal.SIGINT)
            assert await ended(process) == "done\n"


@pytest.mark.parametrize("form", FORMS)
async def test_a_workflow_and_its_costs_are_followed_until_interrupted(form: str, tmp_path: Path) -> None:
    async with serving(tmp_path) as server, Client(server.url) as client:
        workflow = await create_review_workflow(client)
        async with running(f"{form}workflow_and_costs.py", server.url, workflow.id, "ada") as process:
            assert await line(process) == "following"
            await client.workflows.create_resource(workflow_id=workflow.id)
            assert (await line(process)).startswith("event: RESOURCE_CREATED resource ")
            await client.llm.chat_completion(
                model="echo", messages=[ChatMessageInput(role="user", content="a b")], user="ada"
            )
            assert await line(process) == "cost: 6e-06 echo/echo"
            process.send_signal(signal.SIGINT)
            assert await ended(process) == "done\n"
