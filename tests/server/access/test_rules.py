"""Every root field has a rule, and who may not see something is answered as if it were not there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from graphql import GraphQLObjectType

from circuit_breaker_sdk import SubscriptionError, TransportError
from circuit_breaker_server import logs
from circuit_breaker_server.access.fields import MUTATION_RULES, QUERY_RULES
from circuit_breaker_server.access.streams import STREAMS
from circuit_breaker_server.graphql.schema import load_schema
from tests.policy_file import policy_of
from tests.server.access.office import UNKNOWN, open_office, settled
from tests.server.operations import CREATE_RESOURCE, CREATE_SERVER, CREATE_WORKFLOW, EXECUTE, WORKFLOW


@pytest.fixture(autouse=True)
def quiet_logs(default_log_level: None) -> None:
    logs.configure("critical")


def fields_of(root: GraphQLObjectType | None) -> set[str]:
    return set() if root is None else set(root.fields)


def test_every_root_field_has_a_rule_and_no_rule_is_of_a_field_that_is_not() -> None:
    schema = load_schema()
    assert set(QUERY_RULES) == fields_of(schema.query_type)
    assert set(MUTATION_RULES) == fields_of(schema.mutation_type)
    assert set(STREAMS) == fields_of(schema.subscription_type)


OF_WORKFLOW = [
    "query($id: String!) { workflow(id: $id) { id name } }",
    "query($id: String!) { resources(workflowId: $id) { id } }",
    "query($id: String!) { workflowStates(workflowId: $id) { id } }",
    'query($id: String!) { state(workflowId: $id, stateId: "draft") { id } }',
    "query($id: String!) { workflowRules(workflowId: $id) { id } }",
    'query($id: String!) { resourcesInState(workflowId: $id, stateId: "draft") { id } }',
    "mutation($id: String!) { createResource(input: {workflowId: $id, data: {}, metadata: {}}) { id } }",
    "mutation($id: String!) { createWorkflowInstance(input: {workflowId: $id, initialData: {}}) { id } }",
]
OF_RESOURCE = [
    "query($id: String!) { resource(id: $id) { id state } }",
    "query($id: String!) { natsResource(id: $id) { id natsSequence } }",
    "query($id: String!) { availableActivities(resourceId: $id) { id } }",
    "query($id: String!) { resourceExecutions(resourceId: $id) { id } }",
    'mutation($id: String!) { executeActivity(input: {resourceId: $id, activityId: "submit"}) { id } }',
    "mutation($id: String!) { triggerStateAgents(input: {resourceId: $id}) { id } }",
]
OF_SERVER = [
    "query($id: ID!) { mcpServer(id: $id) { id name } }",
    "query($id: ID!) { mcpServerHealth(serverId: $id) { status } }",
    "query($id: ID!) { mcpServerCapabilities(serverId: $id) { serverId } }",
    "mutation($id: ID!) { toggleMcpServer(id: $id, enabled: false) { id } }",
    "mutation($id: ID!) { testMcpConnection(serverId: $id) { success } }",
    "mutation($id: ID!) { deleteMcpServer(id: $id) { success } }",
]


def as_unknown(answer: dict[str, Any], id_: str) -> str:
    return json.dumps(answer).replace(id_, UNKNOWN)


async def test_what_one_may_not_see_is_answered_as_what_is_not_there(tmp_path: Path) -> None:
    mine = [
        "workflow:admin:mine",
        "nats:admin:mine",
        "mcp:admin:server/*",
        "rule:admin:mine",
        "agent:admin:mine",
    ]
    async with open_office(tmp_path, eve=("other", mine)) as office:
        workflow = await office.workflow()
        resource = await office.resource(workflow)
        server = await office.made(
            CREATE_SERVER,
            {
                "name": "tools",
                "type": "LOCAL",
                "tenantId": "acme",
                "config": {"endpoint": "http://127.0.0.1:9/mcp"},
                "enabled": False,
            },
        )
        for queries, id_ in ((OF_WORKFLOW, workflow), (OF_RESOURCE, resource), (OF_SERVER, server)):
            for query in queries:
                foreign = await office.ask("eve", query, id=id_)
                unknown = await office.ask("eve", query, id=UNKNOWN)
                assert as_unknown(foreign, id_) == as_unknown(unknown, id_), query
                assert "Cannot query" not in str(foreign), foreign
                theirs = await office.ask("boss", query, id=id_)
                assert as_unknown(theirs, id_) != as_unknown(unknown, id_) or theirs == unknown, query


async def test_lists_and_counts_are_without_what_one_may_not_see(tmp_path: Path) -> None:
    async with open_office(
        tmp_path, eve=("other", ["mcp:read:*", "workflow:read:nothing*"]), ann=("acme", ["mcp:read:*"])
    ) as office:
        workflow = await office.workflow()
        await office.resource(workflow)
        given = {
            "name": "tools",
            "type": "LOCAL",
            "tenantId": "acme",
            "config": {"endpoint": "http://127.0.0.1:9/mcp"},
            "enabled": False,
        }
        await office.made(CREATE_SERVER, given)
        page = "{ mcpServers { totalCount pageInfo { totalCount } edges { node { name } } } }"
        for who, count in (("boss", 1), ("ann", 1), ("eve", 0)):
            found = (await office.ask(who, page))["data"]["mcpServers"]
            assert (found["totalCount"], len(found["edges"])) == (count, count)
            by_tenant = '{ mcpServersByTenant(tenantId: "acme") { totalCount } }'
            assert (await office.ask(who, by_tenant))["data"]["mcpServersByTenant"]["totalCount"] == count
        for query, name in (("{ workflows { id } }", "workflows"), ("{ resources { id } }", "resources")):
            assert (await office.ask("eve", query))["data"][name] == []
            assert len((await office.ask("boss", query))["data"][name]) == 1


async def test_what_one_may_see_and_not_change_is_refused(tmp_path: Path) -> None:
    async with open_office(tmp_path, ann=("acme", ["workflow:read:*", "llm:write:self"])) as office:
        workflow = await office.workflow()
        resource = await office.resource(workflow)
        execute = {"resourceId": resource, "activityId": "submit"}
        for query, given in (
            (EXECUTE, execute),
            (CREATE_RESOURCE, {"workflowId": workflow, "data": {}, "metadata": {}}),
            (CREATE_WORKFLOW, WORKFLOW),
        ):
            answer = await office.ask("ann", query, input=given)
            assert answer["errors"][0]["extensions"]["code"] == "FORBIDDEN", answer
            assert "workflow:" in answer["errors"][0]["message"]
        for user, code in (("ann", None), (None, None), ("bob", "FORBIDDEN")):
            complete = "mutation($i: LlmChatCompletionInput!) { llmChatCompletion(input: $i) { id } }"
            asked = {"model": "echo", "messages": [{"role": "USER", "content": "hello"}], "user": user}
            answer = await office.ask("ann", complete, i=asked)
            assert (answer.get("errors") or [{"extensions": {"code": None}}])[0]["extensions"]["code"] == code


async def test_who_is_in_no_entry_of_the_policy_may_do_nothing(tmp_path: Path) -> None:
    async with open_office(tmp_path) as office:
        workflow = await office.workflow()
        assert (await office.ask("nobody", "query($id: String!) { workflow(id: $id) { id } }", id=workflow))[
            "data"
        ] == {"workflow": None}
        async with office.client("nobody") as client:
            with pytest.raises((TransportError, SubscriptionError)) as refused:
                await client.workflows.subscribe_workflow_events(workflow_id=workflow).subscribe()
            assert "FORBIDDEN" in str(refused.value) or "needs a scope" in str(refused.value)


async def test_a_stream_carries_what_may_be_seen_and_nothing_else_live_and_replayed(tmp_path: Path) -> None:
    async with open_office(tmp_path, ann=("acme", [])) as office:
        first, second = await office.workflow(), await office.workflow()
        office.policy.write_text(policy_of({"ann": ("acme", [f"workflow:read:{first}"])}))
        await settled(office, "ann", first)
        async with office.client("ann") as client, office.client("boss") as boss:
            mine = await client.workflows.subscribe_resource_updates().subscribe()
            start = mine.cursor
            for workflow in (second, first, second, first):
                await boss.workflows.create_resource(workflow_id=workflow, data={})
            seen = [await anext(mine) for _ in range(2)]
            assert {event.workflow_id for event in seen} == {first}
            again = await client.workflows.subscribe_resource_updates().after(str(start)).subscribe()
            assert [(await anext(again)).id for _ in range(2)] == [event.id for event in seen]
            with pytest.raises((TransportError, SubscriptionError)):
                await client.workflows.subscribe_workflow_events(workflow_id=second).subscribe()


async def test_a_change_of_the_policy_reaches_streams_that_are_live(tmp_path: Path) -> None:
    async with open_office(tmp_path, ann=("acme", ["workflow:read:*"])) as office:
        first, second = await office.workflow(), await office.workflow()
        async with office.client("ann") as client, office.client("boss") as boss:
            mine = await client.workflows.subscribe_resource_updates().subscribe()
            await boss.workflows.create_resource(workflow_id=second, data={"n": 1})
            assert (await anext(mine)).workflow_id == second
            office.policy.write_text(policy_of({"ann": ("acme", [f"workflow:read:{first}"])}))
            unseen = "query($id: String!) { workflow(id: $id) { id } }"
            while (await office.ask("ann", unseen, id=second))["data"]["workflow"] is not None:
                pass
            await boss.workflows.create_resource(workflow_id=second, data={"n": 2})
            await boss.workflows.create_resource(workflow_id=first, data={"n": 3})
            assert (await anext(mine)).data == {"n": 3}
            office.policy.write_text(policy_of({"ann": ("acme", [])}))
            with pytest.raises((TransportError, SubscriptionError)) as ended:
                await anext(mine)
            assert "needs a scope" in str(ended.value)


async def test_numbers_of_the_log_are_withheld_and_cursors_tell_nothing(tmp_path: Path) -> None:
    scopes = ["workflow:read:*", "nats:read:*"]
    async with open_office(
        tmp_path, ann=("acme", scopes), bob=("acme", [*scopes, "log:read:sequence"])
    ) as office:
        workflow = await office.workflow()
        resource = await office.resource(workflow)
        query = "query($id: String!) { natsResource(id: $id) { natsSequence } }"
        assert (await office.ask("ann", query, id=resource))["data"]["natsResource"] == {"natsSequence": None}
        shown = (await office.ask("bob", query, id=resource))["data"]["natsResource"]["natsSequence"]
        assert int(shown) > 0
        document = "subscription($id: String!) { workflowEvents(workflowId: $id) { natsSequence } }"
        for who in ("ann", "bob"):
            async with office.client(who) as client:
                events = await client.subscribe(document, {"id": workflow}, type=dict[str, Any])
                await office.resource(workflow)
                sequence = (await anext(events))["natsSequence"]
                assert (sequence is None) is (who == "ann")
                assert events.cursor is None or "~" in events.cursor
                assert events.cursor is None or len(events.cursor.partition("~")[2]) == 32


async def test_a_cursor_that_was_changed_is_no_cursor(tmp_path: Path) -> None:
    async with open_office(tmp_path) as office, office.client("boss") as boss:
        workflow = await office.workflow()
        updates = await boss.workflows.subscribe_resource_updates(workflow_id=workflow).subscribe()
        cursor = str(updates.cursor)
        for place in range(len(cursor) - 32, len(cursor)):
            changed = cursor[:place] + ("0" if cursor[place] != "0" else "1") + cursor[place + 1 :]
            with pytest.raises((TransportError, SubscriptionError)):
                await (
                    boss.workflows.subscribe_resource_updates(workflow_id=workflow).after(changed).subscribe()
                )


async def test_a_completion_is_its_askers_and_ends_for_others_when_they_may_not_see_it_any_more(
    tmp_path: Path,
) -> None:
    mine, all_of_them = ["llm:write:self"], ["llm:read:*"]
    async with open_office(tmp_path, ann=("acme", mine), bob=("acme", all_of_them)) as office:
        complete = "mutation($i: LlmChatCompletionInput!) { llmChatCompletion(input: $i) { id } }"
        asked = {"model": "echo", "messages": [{"role": "USER", "content": "a b"}], "stream": True}
        document = 'subscription { llmStream(requestId: "r-1") { eventType isComplete } }'
        async with office.client("ann") as ann, office.client("bob") as bob:
            waiting = await bob.subscribe(document, type=dict[str, Any])
            office.policy.write_text(policy_of({"ann": ("acme", mine), "bob": ("acme", ["llm:read:bob"])}))
            own = await ann.subscribe(document, type=dict[str, Any])
            answer = await office.ask("ann", complete, i={**asked, "requestId": "r-1"})
            assert "errors" not in answer, answer
            seen = [event["eventType"] async for event in own]
            assert seen[-1] == "STREAM_END"
            again = await ann.subscribe(document, type=dict[str, Any])
            assert [event["eventType"] async for event in again] == seen
            office.policy.write_text(policy_of({"ann": ("acme", mine), "bob": ("acme", all_of_them)}))
            found = [event["eventType"] async for event in waiting]
            assert found == seen
