"""Root fields of workflows, states, resources and activities."""

from __future__ import annotations

from collections.abc import Mapping

from circuit_breaker_server.engine.workflows.inputs import (
    CreateResource,
    CreateWorkflow,
    ExecuteActivity,
    StateInput,
    StateUpdate,
)
from circuit_breaker_server.graphql.roots.arguments import (
    Mutation,
    Query,
    in_turns,
    input_of,
    optional_text,
    text,
)

__all__ = ["MUTATIONS", "QUERIES"]

QUERIES: Mapping[str, Query] = {
    "workflow": lambda engine, given: engine.workflows.workflow(text(given, "id")),
    "workflows": lambda engine, _given: in_turns(engine.workflows.workflows()),
    "resource": lambda engine, given: engine.workflows.resource(text(given, "id")),
    "resources": lambda engine, given: in_turns(
        engine.workflows.resources(optional_text(given, "workflowId"))
    ),
    "availableActivities": lambda engine, given: engine.workflows.available_activities(
        text(given, "resourceId")
    ),
    "state": lambda engine, given: engine.workflows.state(text(given, "workflowId"), text(given, "stateId")),
    "workflowStates": lambda engine, given: engine.workflows.workflow_states(text(given, "workflowId")),
}

MUTATIONS: Mapping[str, Mutation] = {
    "createWorkflow": lambda engine, given: engine.workflows.create_workflow(input_of(given, CreateWorkflow)),
    "createResource": lambda engine, given: engine.workflows.create_resource(input_of(given, CreateResource)),
    "executeActivity": lambda engine, given: engine.workflows.execute_activity(
        input_of(given, ExecuteActivity)
    ),
    "createState": lambda engine, given: engine.workflows.create_state(input_of(given, StateInput)),
    "updateState": lambda engine, given: engine.workflows.update_state(
        text(given, "workflowId"), text(given, "stateId"), input_of(given, StateUpdate)
    ),
}
