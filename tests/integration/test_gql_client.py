"""A client that we did not write, gql, receives both streams from our server."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from pathlib import Path

from gql import Client as GqlClient
from gql import gql
from gql.transport.websockets import WebsocketsTransport

from circuit_breaker_sdk import Client
from circuit_breaker_server import Server, ServerSettings
from tests.integration.workflows import create_review_workflow

RESOURCE_UPDATES = """subscription($id: String!) { resourceUpdates(resourceId: $id) { id state } }"""
WORKFLOW_EVENTS = """
subscription($id: String!) { workflowEvents(workflowId: $id) { eventType resourceId data natsSequence } }
"""


async def _first(stream: AsyncIterator[dict[str, dict[str, object]]], count: int) -> list[dict[str, object]]:
    events: list[dict[str, object]] = []
    async for event in stream:
        (value,) = event.values()
        events.append(value)
        if len(events) == count:
            break
    return events


async def test_gql_receives_both_streams(tmp_path: Path) -> None:
    async with Server(ServerSettings(port=0, data_dir=tmp_path)) as server, Client(server.url) as client:
        workflow = await create_review_workflow(client)
        resource = await client.workflows.create_resource(workflow_id=workflow.id, data={"title": "Plan"})
        transport = WebsocketsTransport(url=server.url.replace("http://", "ws://"))
        async with GqlClient(transport=transport) as session:
            updates_query, events_query = gql(RESOURCE_UPDATES), gql(WORKFLOW_EVENTS)
            updates_query.variable_values = {"id": resource.id}
            events_query.variable_values = {"id": workflow.id}
            async with asyncio.TaskGroup() as group:
                updates = group.create_task(_first(session.subscribe(updates_query), 6))
                events = group.create_task(_first(session.subscribe(events_query), 12))
                # gql cannot tell when an operation stands: go on until both readers have enough.
                activities = itertools.cycle(["submit", "reject"])
                while not (updates.done() and events.done()):
                    await client.workflows.execute_activity(
                        resource_id=resource.id, activity_id=next(activities)
                    )
    states = [update["state"] for update in updates.result()]
    assert {update["id"] for update in updates.result()} == {resource.id}
    assert states in (["review", "draft"] * 3, ["draft", "review"] * 3), "every change once, in order"
    types = [event["eventType"] for event in events.result()]
    assert types == ["ACTIVITY_EXECUTED", "RESOURCE_STATE_CHANGED"] * 6
    sequence = [int(str(event["natsSequence"])) for event in events.result()]
    assert sequence == sorted(sequence)
    assert len(set(sequence)) == 6, "both events of a change come from its one record"
