"""Root fields of resources with their place in the event log."""

from __future__ import annotations

from collections.abc import Mapping

from circuit_breaker_server.engine.nats.inputs import CreateInstance, ExecuteWithNats
from circuit_breaker_server.graphql.roots.arguments import (
    List,
    Mutation,
    Query,
    input_of,
    optional_text,
    text,
)

__all__ = ["LISTS", "MUTATIONS", "QUERIES"]

LISTS: Mapping[str, List] = {
    "resourcesInState": lambda engine, given, _may_see: engine.nats.in_state(
        text(given, "workflowId"), text(given, "stateId"), after=optional_text(given, "after")
    ),
}

QUERIES: Mapping[str, Query] = {
    "natsResource": lambda engine, given: engine.nats.resource(text(given, "id")),
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
