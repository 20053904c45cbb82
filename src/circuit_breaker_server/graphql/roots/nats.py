"""Root fields of resources with their place in the event log."""

from __future__ import annotations

from collections.abc import Mapping

from circuit_breaker_server.engine.nats.inputs import CreateInstance, ExecuteWithNats
from circuit_breaker_server.graphql.roots.arguments import Mutation, Query, in_turns, input_of, text

__all__ = ["MUTATIONS", "QUERIES"]

QUERIES: Mapping[str, Query] = {
    "natsResource": lambda engine, given: engine.nats.resource(text(given, "id")),
    "resourcesInState": lambda engine, given: in_turns(
        engine.nats.in_state(text(given, "workflowId"), text(given, "stateId"))
    ),
    "findResource": lambda engine, given: engine.nats.find(
        text(given, "workflowId"), text(given, "resourceId")
    ),
}

MUTATIONS: Mapping[str, Mutation] = {
    "createWorkflowInstance": lambda engine, given: engine.nats.create_instance(
        input_of(given, CreateInstance)
    ),
    "executeActivityWithNats": lambda engine, given: engine.nats.execute_activity(
        input_of(given, ExecuteWithNats)
    ),
}
