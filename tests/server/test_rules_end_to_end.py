"""Rules over the whole server: GraphQL in, GraphQL out, on real sockets and the real log."""

from __future__ import annotations

from pathlib import Path

import msgspec

from tests.server.operations import CREATE_RESOURCE, CREATE_WORKFLOW, EVENTS, EXECUTE, WORKFLOW
from tests.server.site import Site, site

CREATE = "mutation($input: RuleInput!) { createRule(input: $input) { id } }"
EVALUATE = """
    mutation($input: RuleEvaluationInput!) {
      evaluateRule(input: $input) { ruleId passed reason details subResults { ruleId passed reason } }
    }
"""
RULES = """
    query($workflow: String!) {
      rules(tags: ["gate"]) {
        name version tags createdBy
        condition { conditionType rules { id condition { conditionType field value rule { id } script } } }
      }
      workflowRules(workflowId: $workflow) { id }
    }
"""
UPDATE = "mutation($id: String!, $input: RuleInput!) { updateRule(id: $id, input: $input) { version } }"
DELETE = "mutation($id: String!) { deleteRule(id: $id) }"


def given(limit: int) -> dict[str, object]:
    hot = {"conditionType": "FieldGreaterThan", "field": "heat", "value": limit}
    known = {"conditionType": "FieldExists", "field": "heat"}
    condition = {"conditionType": "And", "rules": [known, {"conditionType": "Not", "rule": hot}]}
    return {"name": "cool", "description": "not too hot", "tags": ["gate"], "condition": condition}


def workflow_naming(rule_id: str) -> dict[str, object]:
    conditions = {"conditions": [f"rule:{rule_id}"]}
    activities = msgspec.convert(WORKFLOW["activities"], list[dict[str, object]])
    return {**WORKFLOW, "activities": [{**each, **conditions} for each in activities]}


async def refused(running: Site, query: str, **variables: object) -> object:
    answer = await running.post(query, variables)
    (error,) = msgspec.convert(answer["errors"], list[dict[str, object]])
    return error["extensions"]


async def test_a_rule_gates_the_activity_that_names_it_as_it_is_now_and_stays(
    tmp_path: Path,
) -> None:
    async with site(tmp_path) as running:
        rule, created = await running.made(CREATE, given(limit=10))
        assert created
        workflow, _ = await running.made(CREATE_WORKFLOW, workflow_naming(rule))
        resource, _ = await running.made(CREATE_RESOURCE, {"workflowId": workflow, "data": {"heat": 15}})
        client = await running.open()
        await client.init()
        client.subscribe("e", EVENTS, {"id": workflow})
        await client.live("e")
        ping = {"resourceId": resource, "activityId": "ping"}
        assert await refused(running, EXECUTE, input=ping) == {
            "code": "ACTIVITY_NOT_ALLOWED",
            "state": "left",
            "condition": f"rule:{rule}",
        }
        assert await refused(running, DELETE, id=rule) == {"code": "CONFLICT", "workflowId": workflow}
        updated = await running.post(UPDATE, {"id": rule, "input": given(limit=20)})
        assert updated["data"] == {"updateRule": {"version": 2}}
        await running.made(EXECUTE, ping)
        first = await client.next_of("e")
        assert first["data"]["workflowEvents"]["eventType"] == "ACTIVITY_EXECUTED"
        answer = await running.post(RULES, {"workflow": workflow})
        nothing = {"value": None, "rule": None, "script": None}
        negated = {"conditionType": "Not", "field": None, **nothing, "rule": {"id": f"{rule}.1.0"}}
        exists = {"conditionType": "FieldExists", "field": "heat", **nothing}
        nested = [{"id": f"{rule}.0", "condition": exists}, {"id": f"{rule}.1", "condition": negated}]
        assert answer["data"] == {
            "rules": [
                {
                    "name": "cool",
                    "version": 2,
                    "tags": ["gate"],
                    "createdBy": None,
                    "condition": {"conditionType": "And", "rules": nested},
                }
            ],
            "workflowRules": [{"id": rule}],
        }


async def test_an_evaluation_changes_nothing_and_a_rule_that_nobody_names_can_be_deleted(
    tmp_path: Path,
) -> None:
    async with site(tmp_path) as running:
        rule, _ = await running.made(CREATE, given(limit=10))
        answer = await running.post(EVALUATE, {"input": {"ruleId": rule, "data": {"heat": 11}}})
        assert answer == {
            "data": {
                "evaluateRule": {
                    "ruleId": rule,
                    "passed": False,
                    "reason": f"1 of 2 rules fail, the first is {rule}.1",
                    "details": {"conditionType": "And", "passed": 1, "of": 2},
                    "subResults": [
                        {"ruleId": f"{rule}.0", "passed": True, "reason": "the data has the key 'heat'"},
                        {
                            "ruleId": f"{rule}.1",
                            "passed": False,
                            "reason": f"rule {rule}.1.0 passes, and is negated",
                        },
                    ],
                }
            }
        }, "no cursor: it made no record"
        deleted = await running.post(DELETE, {"id": rule})
        assert deleted["data"] == {"deleteRule": True}
        assert "extensions" in deleted
        assert await running.post("query($id: String!) { rule(id: $id) { id } }", {"id": rule}) == {
            "data": {"rule": None}
        }


async def test_a_condition_nested_beyond_all_bounds_is_refused_and_the_server_goes_on(tmp_path: Path) -> None:
    async with site(tmp_path) as running:
        for depth in (17, 100, 400):  # deeper than 500 is refused before it is read
            condition: dict[str, object] = {"conditionType": "FieldExists", "field": "x"}
            for _ in range(depth - 1):
                condition = {"conditionType": "Not", "rule": condition}
            extensions = await refused(running, CREATE, input={**given(1), "condition": condition})
            assert isinstance(extensions, dict)
            assert extensions["code"] == "INVALID_INPUT", depth
        assert await running.post("{ health }") == {"data": {"health": "ok"}}
