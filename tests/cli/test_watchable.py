"""Every stream can be watched, with the options that it takes and no others."""

from __future__ import annotations

from pathlib import Path

import pytest

from circuit_breaker_sdk import UsageError
from circuit_breaker_sdk.cli.client_commands import STREAM_NAMES
from circuit_breaker_sdk.cli.streams import STREAMS, choose, moment_and_words
from circuit_breaker_sdk.events import Event
from circuit_breaker_sdk.types import ChatMessageInput
from circuit_breaker_server.engine.engine import STREAMS as SERVED
from tests.domains.worlds import served
from tests.integration.workflows import create_review_workflow

OTHER = {"natsResourceStream", "mcpCapabilityUpdates"}


def test_the_command_line_names_every_stream_of_the_plan() -> None:
    assert tuple(STREAMS) == STREAM_NAMES
    assert len(STREAMS) == len(SERVED.keys() - OTHER)


@pytest.mark.parametrize("name", STREAMS)
def test_an_option_that_a_stream_does_not_take_or_lacks_is_a_usage_error(name: str) -> None:
    kind = STREAMS[name]
    needed = dict.fromkeys(kind.required[:1], "x")
    assert str(choose(name, needed)).startswith(f"{name} (")
    with pytest.raises(UsageError, match=f"{name} takes --"):
        choose(name, {**needed, "nonsense": "x"})
    if kind.required:
        with pytest.raises(UsageError, match=f"{name} needs --"):
            choose(name, {})


async def test_events_of_the_streams_are_put_into_words(tmp_path: Path) -> None:
    async with served(tmp_path) as client:
        workflow = await create_review_workflow(client)
        streams = {
            "resource-updates": {"workflow_id": workflow.id},
            "workflow-events": {"workflow_id": workflow.id},
            "llm-stream": {"request_id": "request-1"},
            "cost-updates": {"user_id": "ada"},
        }
        live = {
            name: await choose(name, given).builder(client).subscribe() for name, given in streams.items()
        }
        await client.workflows.create_resource(workflow_id=workflow.id)
        await client.llm.chat_completion(
            model="echo",
            messages=[ChatMessageInput(role="user", content="a")],
            stream=True,
            request_id="request-1",
            user="ada",
        )
        said = {}
        for name, subscription in live.items():
            event: Event = await anext(subscription)
            said[name] = moment_and_words(event)[1]
            await subscription.unsubscribe()
    assert said["resource-updates"].endswith("created as draft")
    assert "was created in state draft" in said["workflow-events"]
    assert said["llm-stream"] == "request-… STREAM_START"
    assert said["cost-updates"] == "COST_INCURRED +0.000003 USD, 0.000003 used"
