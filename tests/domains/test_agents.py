"""``client.agents``: agents made, configured, triggered and followed on the real server."""

from __future__ import annotations

from pathlib import Path

import pytest

from circuit_breaker_sdk import Client, OperationError, SubscriptionFailed
from circuit_breaker_sdk.types import (
    AgentExecutionEventType,
    AgentExecutionStatus,
    AgentLLMProviderInput,
    AgentPromptsInput,
    LLMConfigInput,
    Resource,
    StateAgentConfig,
    WorkflowEventType,
)
from tests.domains.worlds import served
from tests.integration.workflows import create_review_workflow


async def configured(client: Client) -> tuple[Resource, StateAgentConfig]:
    workflow = await create_review_workflow(client)
    resource = await client.workflows.create_resource(workflow_id=workflow.id, data={"title": "Plan"})
    agent = await client.agents.create_agent(
        name="Reviewer",
        description="",
        llm_provider=AgentLLMProviderInput(provider_type="echo", model="echo", api_key=""),
        llm_config=LLMConfigInput(temperature=0.0, stop_sequences=[]),
        prompts=AgentPromptsInput(system="", user_template="Read {title}"),
        capabilities=[],
        tools=[],
    )
    assert await client.agents.agent(id=agent.id) == agent
    assert await client.agents.agents() == [agent]
    config = await client.agents.create_state_agent_config(
        state_id="draft",
        agent_id=agent.id,
        input_mapping={"title": "data.title"},
        output_mapping={"verdict": "content"},
        auto_activity="submit",
        enabled=True,
    )
    assert await client.agents.state_agent_configs(state_id="draft") == [config]
    return resource, config


async def test_a_run_is_followed_from_its_beginning_and_completes(tmp_path: Path) -> None:
    async with served(tmp_path) as client:
        resource, config = await configured(client)
        everything = await client.subscriptions.agent_execution_stream(agent_id=config.agent_id).subscribe()
        happenings = await client.workflows.subscribe_workflow_events(
            workflow_id=resource.workflow_id
        ).subscribe()
        (execution,) = await client.agents.trigger_state_agents(resource_id=resource.id)
        assert execution.status in (AgentExecutionStatus.PENDING, AgentExecutionStatus.RUNNING)
        stream = await client.agents.subscribe_execution_stream(execution_id=execution.id).subscribe()
        events = [event async for event in stream]
        assert [event.type for event in events] == [
            AgentExecutionEventType.STARTED,
            *[AgentExecutionEventType.PROGRESS] * 2,
            AgentExecutionEventType.COMPLETED,
        ]
        assert [event.is_last for event in events] == [False, False, False, True]
        assert [await anext(everything) for _ in events] == events
        done = await client.agents.agent_execution(id=execution.id)
        assert done is not None
        assert (done.status, done.output_data) == (
            AgentExecutionStatus.COMPLETED,
            {"content": "Read Plan", "output": None},
        )
        assert await client.agents.resource_executions(resource_id=resource.id) == [done]
        seen = [(await anext(happenings)).type for _ in range(3)]
        assert seen[0] is WorkflowEventType.AGENT_TRIGGERED
        after = await client.workflows.resource(id=resource.id)
        assert after is not None
        assert (after.state, after.data) == ("review", {"title": "Plan", "verdict": "Read Plan"})
        await everything.unsubscribe()
        await happenings.unsubscribe()


async def test_a_run_that_is_over_cannot_be_cancelled_and_arguments_are_checked(tmp_path: Path) -> None:
    async with served(tmp_path) as client:
        resource, _ = await configured(client)
        (execution,) = await client.agents.trigger_state_agents(resource_id=resource.id)
        async for _ in client.agents.subscribe_execution_stream().execution_id(execution.id):
            pass
        with pytest.raises(OperationError, match="is over") as over:
            await client.agents.cancel_agent_execution(execution_id=execution.id)
        assert over.value.code == "CONFLICT"
        with pytest.raises(SubscriptionFailed, match="exactly one of"):
            await client.agents.subscribe_execution_stream().subscribe()
