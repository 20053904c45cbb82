"""Root fields of agents."""

from __future__ import annotations

from collections.abc import Mapping

from circuit_breaker_server.engine.agents.inputs import AgentInput, StateAgentConfigInput, TriggerInput
from circuit_breaker_server.graphql.roots.arguments import List, Mutation, Query, input_of, text

__all__ = ["LISTS", "MUTATIONS", "QUERIES"]

LISTS: Mapping[str, List] = {
    "agents": lambda engine, _given, _may_see: engine.agents.agents(),
    "stateAgentConfigs": lambda engine, given, _may_see: engine.agents.state_configs(text(given, "stateId")),
    "resourceExecutions": lambda engine, given, _may_see: engine.agents.resource_executions(
        text(given, "resourceId")
    ),
}

QUERIES: Mapping[str, Query] = {
    "agent": lambda engine, given: engine.agents.agent(text(given, "id")),
    "agentExecution": lambda engine, given: engine.agents.execution(text(given, "id")),
}

MUTATIONS: Mapping[str, Mutation] = {
    "createAgent": lambda engine, given: engine.agents.create_agent(input_of(given, AgentInput)),
    "createStateAgentConfig": lambda engine, given: engine.agents.create_state_config(
        input_of(given, StateAgentConfigInput)
    ),
    "triggerStateAgents": lambda engine, given: engine.agents.trigger(input_of(given, TriggerInput)),
    "cancelAgentExecution": lambda engine, given: engine.agents.cancel(text(given, "executionId")),
}
