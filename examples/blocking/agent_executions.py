"""Have an agent read a ticket, and follow its run, without asyncio: python agent_executions.py [URL]."""

import sys

from circuit_breaker_sdk import SyncClient
from circuit_breaker_sdk.types import (
    ActivityInput,
    AgentLLMProviderInput,
    AgentPromptsInput,
    LLMConfigInput,
    StateInput,
)

URL = sys.argv[1] if len(sys.argv) > 1 else "ws://localhost:4000/graphql"

with SyncClient(URL) as client:
    workflow = client.workflows.create_workflow(
        name="Tickets",
        initial_state="new",
        states=[StateInput(id="new", name="New"), StateInput(id="read", name="Read")],
        activities=[ActivityInput(id="read", from_states=["new"], to_state="read")],
    )
    agent = client.agents.create_agent(
        name="Reader", description="Reads tickets", capabilities=[], tools=[],
        llm_provider=AgentLLMProviderInput(provider_type="echo", model="echo", api_key=""),
        llm_config=LLMConfigInput(temperature=0.0, stop_sequences=[]),
        prompts=AgentPromptsInput(system="Be brief.", user_template="Read: {subject}"),
    )  # fmt: skip
    client.agents.create_state_agent_config(
        state_id="new", agent_id=agent.id, auto_activity="read", enabled=True,
        input_mapping={"subject": "data.subject"}, output_mapping={"summary": "content"},
    )  # fmt: skip
    ticket = client.workflows.create_resource(workflow_id=workflow.id, data={"subject": "Hello"})
    for run in client.agents.trigger_state_agents(resource_id=ticket.id):
        for event in client.agents.subscribe_execution_stream(execution_id=run.id):
            print(event.type, event.data)
