"""Agents in the demo: tickets are triaged by an agent that runs on the built-in provider."""

from __future__ import annotations

import re
from collections.abc import Hashable
from itertools import count
from typing import final

from circuit_breaker_sdk.cli.demo.demo_part import Stage
from circuit_breaker_sdk.cli.event_rendering import words_of_execution
from circuit_breaker_sdk.events import (
    ActivityInput,
    AgentExecution,
    AgentExecutionEvent,
    AgentLLMProviderInput,
    AgentPromptsInput,
    LLMConfigInput,
    StateInput,
    StateType,
)

__all__ = ["AgentRuns", "execution_value", "owed_run"]

_PAUSE_SECONDS = 0.2
_SUBJECTS = ("The invoice is wrong", "I cannot sign in", "Please delete my account", "The export is empty")
_TEMPLATE = "Triage this ticket: {subject}"
_WORD = re.compile(r"\s*\S+\s*")


@final
class AgentRuns:
    """A ticket after the other: created, triaged by the agent, moved on by its answer."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._workflow_id = ""
        self._agent_id = ""

    async def prepare(self) -> None:
        """Make the workflow and the agent, and subscribe to the agent's runs."""
        client = self._stage.client
        workflow = await client.workflows.create_workflow(
            name="Support triage",
            initial_state="new",
            states=[
                StateInput(id="new", name="New", state_type=StateType.INITIAL, is_initial=True),
                StateInput(id="triaged", name="Triaged", state_type=StateType.TERMINAL, is_terminal=True),
            ],
            activities=[
                ActivityInput(
                    id="triage", from_states=["new"], to_state="triaged", conditions=["field_exists:subject"]
                )
            ],
        )
        agent = await client.agents.create_agent(
            name="Triage",
            description="Reads a ticket and says what it is about",
            llm_provider=AgentLLMProviderInput(provider_type="echo", model="echo", api_key=""),
            llm_config=LLMConfigInput(temperature=0.0, stop_sequences=[]),
            prompts=AgentPromptsInput(system="You triage tickets.", user_template=_TEMPLATE),
            capabilities=["triage"],
            tools=[],
        )
        await client.agents.create_state_agent_config(
            state_id="new",
            agent_id=agent.id,
            input_mapping={"subject": "data.subject"},
            output_mapping={"summary": "content"},
            auto_activity="triage",
            enabled=True,
        )
        self._workflow_id, self._agent_id = workflow.id, agent.id
        await self._stage.subscribe(
            "agentExecutionStream",
            agent.id,
            client.agents.subscribe_execution_stream(agent_id=agent.id),
            client.subscriptions.agent_execution_stream(agent_id=agent.id),
            value_of=execution_value,
            words_of=words_of_execution,
        )

    async def lead(self) -> None:
        """Open a ticket and trigger its agent, again and again."""
        stage, client = self._stage, self._stage.client
        for number in count():
            if stage.stop.is_set():
                return
            subject = f"{_SUBJECTS[number % len(_SUBJECTS)]} ({number + 1})"
            resource = await client.workflows.create_resource(
                workflow_id=self._workflow_id, data={"subject": subject}
            )
            ticket = stage.ledger.send()
            runs = await client.agents.trigger_state_agents(resource_id=resource.id)
            owed = [value for run in runs for value in owed_run(run, _TEMPLATE.format(subject=subject))]
            stage.ledger.accepted(ticket, {("agentExecutionStream", self._agent_id): owed})
            await stage.pause(_PAUSE_SECONDS)


def execution_value(event: AgentExecutionEvent) -> Hashable:
    """Reduce an event to what the trigger's answer foretells."""
    data = event.data if isinstance(event.data, dict) else {}
    delta = data.get("delta")
    return (event.execution_id, event.type, delta if isinstance(delta, str) else None)


def owed_run(run: AgentExecution, prompt: str) -> list[Hashable]:
    """Tell the events that a run owes: the built-in provider says its prompt back, a word at a time."""
    return [
        (run.id, "STARTED", None),
        *((run.id, "PROGRESS", word) for word in _WORD.findall(prompt)),
        (run.id, "COMPLETED", None),
    ]
