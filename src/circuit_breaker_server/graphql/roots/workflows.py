"""Root fields of workflows, states, resources and activities."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from circuit_breaker_server.engine.command import Value
from circuit_breaker_server.engine.engine import Engine
from circuit_breaker_server.engine.workflows.inputs import (
    CreateResource,
    CreateWorkflow,
    ExecuteActivity,
    StateInput,
    StateUpdate,
)
from circuit_breaker_server.graphql.roots.arguments import (
    Arguments,
    List,
    MaySee,
    Mutation,
    Query,
    input_of,
    optional_text,
    text,
)

__all__ = ["LISTS", "MUTATIONS", "QUERIES"]


def _resources(engine: Engine, given: Arguments, may_see: MaySee | None) -> Iterator[Value | None]:
    workflow_id, after = optional_text(given, "workflowId"), optional_text(given, "after")
    if workflow_id is not None or may_see is None:
        return engine.workflows.resources(workflow_id, after=after)
    return engine.workflows.resources_seen(may_see, after=after)


LISTS: Mapping[str, List] = {
    "workflows": lambda engine, _given, _may_see: engine.workflows.workflows(),
    "resources": _resources,
}

QUERIES: Mapping[str, Query] = {
    "workflow": lambda engine, given: engine.workflows.workflow(text(given, "id")),
    "resource": lambda engine, given: engine.workflows.resource(text(given, "id")),
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
