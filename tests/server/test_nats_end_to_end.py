"""Resources with their place in the log, over the whole server: real sockets, the real log."""

from __future__ import annotations

from pathlib import Path

from tests.server.operations import CREATE_WORKFLOW, EXECUTE, WORKFLOW
from tests.server.site import site

FIELDS = """
    id workflowId state data metadata createdAt updatedAt natsSequence natsTimestamp natsSubject
    history { timestamp activity fromState toState data }
    activityHistory { fromState toState activityId timestamp triggeredBy natsSequence metadata }
"""
CREATE = f"""
    mutation($input: CreateWorkflowInstanceInput!) {{ createWorkflowInstance(input: $input) {{ {FIELDS} }} }}
"""
GO = f"""
    mutation($input: ExecuteActivityWithNatsInput!) {{
      executeActivityWithNats(input: $input) {{ {FIELDS} }}
    }}
"""
QUERY = f"""
    query($id: String!, $workflow: String!) {{
      natsResource(id: $id) {{ {FIELDS} }}
      findResource(workflowId: $workflow, resourceId: $id) {{ {FIELDS} }}
      left: resourcesInState(workflowId: $workflow, stateId: "left") {{ id }}
      right: resourcesInState(workflowId: $workflow, stateId: "right") {{ {FIELDS} }}
    }}
"""
STREAM = f"""
    subscription($workflow: String!, $state: String) {{
      natsResourceStream(workflowId: $workflow, stateId: $state) {{
        eventType subject sequence timestamp activity previousState metadata resource {{ {FIELDS} }}
      }}
    }}
"""


async def test_mutations_queries_and_the_stream_tell_the_same_of_a_resource(tmp_path: Path) -> None:
    async with site(tmp_path) as running:
        workflow, _ = await running.made(CREATE_WORKFLOW, WORKFLOW)
        client = await running.open()
        await client.init()
        client.subscribe("all", STREAM, {"workflow": workflow})
        await client.live("all")
        given = {"workflowId": workflow, "initialData": {"a": 1}, "metadata": {"m": 2}, "triggeredBy": "ada"}
        created = (await running.post(CREATE, {"input": given}))["data"]
        assert isinstance(created, dict)
        resource = created["createWorkflowInstance"]
        event = (await client.next_of("all"))["data"]["natsResourceStream"]
        assert event == {
            "eventType": "CREATED",
            "subject": f"resource.{workflow}.{resource['id']}",
            "sequence": resource["natsSequence"],
            "timestamp": resource["createdAt"],
            "activity": None,
            "previousState": None,
            "metadata": {"triggeredBy": "ada"},
            "resource": resource,
        }
        client.subscribe("right", STREAM, {"workflow": workflow, "state": "right"})
        await client.live("right")
        ping = {"resourceId": resource["id"], "activityId": "ping", "data": {"b": 1}, "triggeredBy": "bo"}
        refused = await running.post(GO, {"input": {**ping, "newState": "left"}})
        assert "leads to 'right'" in str(refused["errors"])
        moved = (await running.post(GO, {"input": {**ping, "newState": "right"}}))["data"]
        assert isinstance(moved, dict)
        resource = moved["executeActivityWithNats"]
        events = {
            str(message["id"]): message["payload"] for message in [await client.receive() for _ in "12"]
        }
        assert events.keys() == {"all", "right"}
        for payload in events.values():
            assert isinstance(payload, dict)
            event = payload["data"]["natsResourceStream"]
            assert event["resource"] == resource
            assert (event["eventType"], event["previousState"], event["activity"]) == (
                "STATE_CHANGED",
                "left",
                "ping",
            )
        (activity,) = resource["activityHistory"]
        assert activity == {
            "fromState": "left",
            "toState": "right",
            "activityId": "ping",
            "timestamp": resource["updatedAt"],
            "triggeredBy": "bo",
            "natsSequence": resource["natsSequence"],
            "metadata": {"b": 1},
        }
        found = await running.post(QUERY, {"id": resource["id"], "workflow": workflow})
        assert found["data"] == {
            "natsResource": resource,
            "findResource": resource,
            "left": [],
            "right": [resource],
        }


async def test_the_stream_is_replayed_as_it_was_from_a_mutation_s_cursor(tmp_path: Path) -> None:
    async with site(tmp_path) as running:
        workflow, start = await running.made(CREATE_WORKFLOW, WORKFLOW)
        client = await running.open()
        await client.init()
        client.subscribe("1", STREAM, {"workflow": workflow}, after=start)
        await client.live("1")
        resource, _ = await running.made(
            "mutation($input: CreateWorkflowInstanceInput!) { createWorkflowInstance(input: $input) { id } }",
            {"workflowId": workflow},
        )
        for activity in ("ping", "pong", "ping"):
            await running.made(EXECUTE, {"resourceId": resource, "activityId": activity})
        live = [await client.receive_bytes() for _ in range(4)]
    async with site(tmp_path) as running:
        client = await running.open()
        await client.init()
        client.subscribe("1", STREAM, {"workflow": workflow}, after=start)
        assert await client.live("1") == start
        assert [await client.receive_bytes() for _ in range(4)] == live


async def test_many_resources_in_and_out_of_a_state_are_answered_in_turns(tmp_path: Path) -> None:
    async with site(tmp_path) as running:
        workflow, _ = await running.made(CREATE_WORKFLOW, WORKFLOW)
        create = (
            "mutation($input: CreateWorkflowInstanceInput!) { createWorkflowInstance(input: $input) { id } }"
        )
        made = [(await running.made(create, {"workflowId": workflow}))[0] for _ in range(150)]
        moved = made[::3]
        for resource in moved:
            await running.made(EXECUTE, {"resourceId": resource, "activityId": "ping"})
        query = 'query($w: String!) { it: resourcesInState(workflowId: $w, stateId: "right") { id } }'
        answer = await running.post(query, {"w": workflow})
        assert answer["data"] == {"it": [{"id": resource} for resource in moved]}
