"""Running GraphQL against an engine, for tests."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Mapping
from typing import final

import msgspec

from circuit_breaker_server.engine.engine import Engine
from circuit_breaker_server.graphql.documents import Documents
from circuit_breaker_server.graphql.execute import execute
from circuit_breaker_server.graphql.schema import load_schema
from circuit_breaker_server.scheduling import Slices
from tests.server.engine.memory_log import MemoryLog
from tests.server.engine.worlds import part, review, running_engine

WORKFLOW = """
    id name description initialState createdAt updatedAt
    states { ...StateFields }
    activities { ...ActivityFields }
"""
STATE = """
    id name description stateType isInitial isTerminal allowedTransitions createdAt updatedAt
    config {
      timeoutSeconds metadata
      autoTransition { enabled delaySeconds targetState conditions }
      notifications { enabled channels templates }
    }
    availableActivities { ...ActivityFields }
"""
ACTIVITY = "id name fromStates toState conditions description"
RESOURCE = """
    id workflowId state data metadata createdAt updatedAt
    stateDefinition { ...StateFields }
    history { timestamp activity fromState toState data }
"""
FRAGMENTS = (
    f"fragment StateFields on StateGQL {{ {STATE} }} fragment ActivityFields on ActivityGQL {{ {ACTIVITY} }}"
)


@final
class Graph:
    """An engine behind its schema."""

    def __init__(self, engine: Engine, log: MemoryLog) -> None:
        self.engine = engine
        self.log = log
        self.documents = Documents(load_schema())
        self.slices = Slices()

    async def answer(
        self,
        query: str,
        variables: Mapping[str, object] | None = None,
        *,
        operation_name: str | None = None,
        timeout_seconds: float = 30.0,
        max_cost: int = 1_000_000,
    ) -> dict[str, object]:
        """Return the whole answer."""
        encoded = await execute(
            self.documents.get(query),
            variables=variables,
            operation_name=operation_name,
            engine=self.engine,
            timeout_seconds=timeout_seconds,
            slices=self.slices,
            max_cost=max_cost,
        )
        return msgspec.json.decode(encoded, type=dict[str, object])

    async def data(self, query: str, variables: Mapping[str, object] | None = None) -> dict[str, object]:
        """Return the data of an answer without errors."""
        answer = await self.answer(query, variables)
        assert "errors" not in answer, answer
        return part(answer, "data", dict)

    async def error(self, query: str, variables: Mapping[str, object] | None = None) -> dict[str, object]:
        """Return the only error of an answer."""
        answer = await self.answer(query, variables)
        (error,) = part(answer, "errors", list)
        assert isinstance(error, dict)
        return error

    async def create_workflow(self, **changes: object) -> dict[str, object]:
        return await self._mutate("createWorkflow", "WorkflowDefinitionInput", WORKFLOW, review(**changes))

    async def create_resource(self, workflow_id: object, **given: object) -> dict[str, object]:
        query = (
            f"mutation($input: ResourceCreateInput!) {{ it: createResource(input: $input) {{ {RESOURCE} }} }}"
        )
        given = {"workflowId": workflow_id, **given}
        return part(await self.data(query + FRAGMENTS, {"input": given}), "it", dict)

    async def execute_activity(
        self, resource_id: object, activity: str, **given: object
    ) -> dict[str, object]:
        given = {"resourceId": resource_id, "activityId": activity, **given}
        return await self._mutate("executeActivity", "ActivityExecuteInput", RESOURCE, given)

    async def _mutate(self, field: str, kind: str, selection: str, given: object) -> dict[str, object]:
        query = f"mutation($input: {kind}!) {{ it: {field}(input: $input) {{ {selection} }} }}"
        return part(await self.data(query + FRAGMENTS, {"input": given}), "it", dict)

    async def resource(self, resource_id: object) -> dict[str, object] | None:
        query = f"query($id: String!) {{ it: resource(id: $id) {{ {RESOURCE} }} }}"
        found = (await self.data(query + FRAGMENTS, {"id": resource_id}))["it"]
        assert found is None or isinstance(found, dict)
        return found


@contextlib.asynccontextmanager
async def serving() -> AsyncIterator[Graph]:
    """Run an engine on a log in memory behind the schema."""
    log = MemoryLog()
    async with running_engine(log) as engine:
        graph = Graph(engine, log)
        try:
            yield graph
        finally:
            graph.slices.close()
