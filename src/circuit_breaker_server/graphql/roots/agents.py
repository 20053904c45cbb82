"""Root fields of agents."""

from __future__ import annotations

from collections.abc import Mapping

from circuit_breaker_server.engine.agents.inputs import AgentInput, StateAgentConfigInput, TriggerInput
from circuit_breaker_server.graphql.roots.arguments import Mutation, Query, input_of, text

__all__ = ["MUTATIONS", "QUERIES"]

QUERIES: Mapping[str, Query] = {
    "agent": lambda engine, given: engine.agents.agent(text(given, "id")),
    "agents": lambda engine, _given: engine.agents.agents(),
    "stateAgentConfigs": lambda engine, given: engine.agents.state_configs(text(given, "stateId")),
    "agentExecution": lambda engine, given: engine.agents.execution(text(given, "id")),
    "resourceExecutions": lambda engine, given: engine.agents.resource_executions(text(given, "resourceId")),
}

MUTATIONS: Mapping[str, Mutation] = {
    "createAgent": lambda engine, given: engine.agents.create_agent(input_of(given, AgentInput)),
    "createStateAgentConfig": lambda engine, given: engine.agents.create_state_config(
        input_of(given, StateAgentConfigInput)
    ),
    "triggerStateAgents": lambda engine, given: engine.agents.trigger(input_of(given, TriggerInput)),
    "cancelAgentExecution": lambda engine, given: engine.agents.cancel(text(given, "executionId")),
}
