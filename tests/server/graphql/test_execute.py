"""Queries and mutations from document to answer: every field, every input, every refusal."""

from __future__ import annotations

import asyncio
from typing import NoReturn

import msgspec
import pytest
import structlog
from graphql import get_introspection_query

from circuit_breaker_sdk.errors import GraphQLError
from circuit_breaker_server.engine.cursor import Cursor
from circuit_breaker_server.engine.workflows.streams import derive
from circuit_breaker_server.graphql.execute import encode_errors
from tests.server.engine.worlds import activity, part, state
from tests.server.graphql.graph import FRAGMENTS, RESOURCE, STATE, WORKFLOW, serving

OFF = {"enabled": False, "delaySeconds": 5, "targetState": "draft", "conditions": ["field_exists:x"]}


# --- every input field has an effect ---


async def test_every_field_of_a_workflows_input_comes_back() -> None:
    config = {
        "timeoutSeconds": None,
        "autoTransition": OFF,
        "notifications": {"enabled": False, "channels": ["mail"], "templates": {"a": [1, {"b": None}]}},
        "metadata": [1, 2.5, "é", None, True],
    }
    states = [
        state("draft", stateType="INITIAL", isInitial=True, description="being written", config=config),
        state("over", stateType="ERROR", isTerminal=True, name="It is over"),
    ]
    activities = [
        activity("end", ["draft"], "over", "field_exists:x", name="End it", description="no way back")
    ]
    async with serving() as graph:
        made = await graph.create_workflow(description="d", states=states, activities=activities)
        assert (made["name"], made["description"], made["initialState"]) == ("document review", "d", "draft")
        first, second = part(made, "states", list)
        assert first["config"] == config
        assert (first["description"], first["stateType"]) == ("being written", "INITIAL")
        assert (first["isInitial"], first["isTerminal"]) == (True, False)
        assert first["allowedTransitions"] == ["over"]
        assert (second["name"], second["stateType"]) == ("It is over", "ERROR")
        assert (second["isInitial"], second["isTerminal"], second["config"]) == (False, True, None)
        assert (
            made["activities"]
            == first["availableActivities"]
            == [
                {
                    "id": "end",
                    "name": "End it",
                    "fromStates": ["draft"],
                    "toState": "over",
                    "conditions": ["field_exists:x"],
                    "description": "no way back",
                }
            ]
        )


@pytest.mark.parametrize(
    ("config", "says"),
    [
        (
            {"timeoutSeconds": 60},
            "states[0].config.timeoutSeconds: this server does not end a stay by time yet",
        ),
        ({"autoTransition": {**OFF, "enabled": True}}, "this server makes no transitions of its own yet"),
        ({"notifications": {"enabled": True, "channels": []}}, "this server sends no messages yet"),
    ],
)
async def test_settings_that_would_be_ignored_are_refused(config: dict[str, object], says: str) -> None:
    query = "mutation($i: WorkflowDefinitionInput!) { createWorkflow(input: $i) { id } }"
    given = {
        "name": "w",
        "states": [state("a", config=config)],
        "activities": [activity("go", ["a"], "a")],
        "initialState": "a",
    }
    async with serving() as graph:
        error = await graph.error(query, {"i": given})
        assert says in str(error["message"])
        assert error["extensions"] == {"code": "INVALID_INPUT"}
        assert error["path"] == ["createWorkflow"]


async def test_every_field_of_a_resources_input_comes_back() -> None:
    async with serving() as graph:
        workflow = (await graph.create_workflow())["id"]
        given = {"initialState": "review", "data": {"a": {"b": [1]}}, "metadata": {"m": None}}
        made = await graph.create_resource(workflow, **given)
        assert made["workflowId"] == workflow
        assert (made["state"], made["data"], made["metadata"]) == ("review", {"a": {"b": [1]}}, {"m": None})
        assert part(made, "stateDefinition", dict)["name"] == "Review"
        assert await graph.resource(made["id"]) == made
        assert (await graph.create_resource(workflow, initialState=None, data=None, metadata=None))[
            "data"
        ] == {}


async def test_every_field_of_an_activitys_input_has_an_effect() -> None:
    async with serving() as graph:
        resource = (await graph.create_resource((await graph.create_workflow())["id"], data={"title": "t"}))[
            "id"
        ]
        done = await graph.execute_activity(resource, "submit", data={"by": "ada"})
        assert (done["state"], done["data"]) == ("review", {"title": "t", "by": "ada"})
        (entry,) = part(done, "history", list)
        assert entry == {
            "timestamp": done["updatedAt"],
            "activity": "submit",
            "fromState": "draft",
            "toState": "review",
            "data": {"by": "ada"},
        }
        assert await graph.resource(resource) == done


async def test_every_field_of_a_states_input_and_of_its_update_has_an_effect() -> None:
    create = f"mutation($i: StateDefinitionInput!) {{ it: createState(input: $i) {{ {STATE} }} }} {FRAGMENTS}"
    create = create.replace(f"fragment StateFields on StateGQL {{ {STATE} }}", "")
    update = (
        "mutation($w: String!, $i: StateUpdateInput!) "
        f'{{ it: updateState(workflowId: $w, stateId: "held", input: $i) {{ {STATE} }} }} '
        "fragment ActivityFields on ActivityGQL { id name fromStates toState conditions description }"
    )
    async with serving() as graph:
        workflow = (await graph.create_workflow())["id"]
        given = state("held", workflowId=workflow, stateType="WAITING", description="d", isTerminal=True)
        made = part(await graph.data(create, {"i": {**given, "config": {"metadata": {"a": 1}}}}), "it", dict)
        assert (made["id"], made["name"], made["description"]) == ("held", "Held", "d")
        assert (made["stateType"], made["isTerminal"], made["isInitial"]) == ("WAITING", True, False)
        assert part(made, "config", dict)["metadata"] == {"a": 1}

        for change, expected in (
            ({"name": "N"}, {"name": "N"}),
            ({"description": None}, {"description": None}),
            ({"stateType": "REVIEW"}, {"stateType": "REVIEW"}),
            ({"isTerminal": False}, {"isTerminal": False}),
            ({"config": None}, {"config": None}),
        ):
            before = made
            made = part(await graph.data(update, {"w": workflow, "i": change}), "it", dict)
            assert made == {**before, **expected, "updatedAt": made["updatedAt"]}
            assert made["updatedAt"] > before["updatedAt"]
        error = await graph.error(update, {"w": workflow, "i": {}})
        assert "names nothing to change" in str(error["message"])


# --- queries ---


async def test_all_queries_answer() -> None:
    async with serving() as graph:
        one, two = await graph.create_workflow(), await graph.create_workflow(name="other")
        first = await graph.create_resource(one["id"])
        second = await graph.create_resource(two["id"], data={"title": "t"})
        data = await graph.data(
            f"""query($w: String!, $r: String!) {{
                health
                workflow(id: $w) {{ {WORKFLOW} }}
                nothing: workflow(id: "x") {{ id }}
                workflows {{ {WORKFLOW} }}
                resource(id: $r) {{ {RESOURCE} }}
                nobody: resource(id: "x") {{ id }}
                resources {{ id }}
                some: resources(workflowId: $w) {{ id }}
                all: resources(workflowId: null) {{ id }}
                availableActivities(resourceId: $r) {{ ...ActivityFields }}
                state(workflowId: $w, stateId: "review") {{ ...StateFields }}
                nowhere: state(workflowId: $w, stateId: "x") {{ id }}
                workflowStates(workflowId: $w) {{ ...StateFields }}
            }} {FRAGMENTS}""",
            {"w": one["id"], "r": second["id"]},
        )
        states = part(one, "states", list)
        assert data == {
            "health": "ok",
            "workflow": one,
            "nothing": None,
            "workflows": [one, two],
            "resource": second,
            "nobody": None,
            "resources": [{"id": first["id"]}, {"id": second["id"]}],
            "some": [{"id": first["id"]}],
            "all": [{"id": first["id"]}, {"id": second["id"]}],
            "availableActivities": part(two, "activities", list)[:2],
            "state": states[1],
            "nowhere": None,
            "workflowStates": states,
        }


async def test_a_query_of_an_unknown_workflow_or_resource_says_so() -> None:
    async with serving() as graph:
        for query in (
            '{ resources(workflowId: "x") { id } }',
            '{ availableActivities(resourceId: "x") { id } }',
            '{ state(workflowId: "x", stateId: "y") { id } }',
            '{ workflowStates(workflowId: "x") { id } }',
        ):
            error = await graph.error(query)
            assert error["extensions"] == {"code": "NOT_FOUND"}
            assert "'x'" in str(error["message"])


async def test_a_long_list_lets_others_run_and_keeps_its_order(monkeypatch: pytest.MonkeyPatch) -> None:
    # However fast the machine is, an item takes a whole slice.
    monkeypatch.setattr("circuit_breaker_server.scheduling.SLICE_SECONDS", 0.0)
    async with serving() as graph:
        workflow = (await graph.create_workflow())["id"]
        made = [(await graph.create_resource(workflow))["id"] for _ in range(200)]
        turns = 0

        async def count_turns() -> None:
            nonlocal turns
            while True:
                await asyncio.sleep(0)
                turns += 1

        other = asyncio.create_task(count_turns())
        data = await graph.data("{ resources { id } }")
        other.cancel()
        await asyncio.wait([other])
        assert [each["id"] for each in part(data, "resources", list)] == made
        assert turns >= 3


async def test_introspection_answers() -> None:
    async with serving() as graph:
        data = await graph.data(get_introspection_query())
        names = [each["name"] for each in part(part(data, "__schema", dict), "types", list)]
        assert "ResourceGQL" in names


# --- mutations ---


async def test_the_answer_to_a_mutation_carries_the_cursor_of_its_last_record() -> None:
    async with serving() as graph:
        workflow = (await graph.create_workflow())["id"]
        query = """mutation($w: String!) {
            a: createResource(input: { workflowId: $w }) { id }
            b: createResource(input: { workflowId: $w }) { id }
        }"""
        answer = await graph.answer(query, {"w": workflow})
        cursor = Cursor.parse(part(part(part(answer, "extensions", dict), "resume", dict), "cursor", str))
        last = graph.log.records[-1]
        assert cursor == Cursor(graph.log.epoch, last.offset, len(derive(last)) - 1, last.check)
        ids = [event.whole["id"] for r in graph.log.records for event in derive(r) if event.stream[0] == "r"]
        data = part(answer, "data", dict)
        assert [data["a"]["id"], data["b"]["id"]] == ids


async def test_a_query_and_a_refused_mutation_carry_no_cursor() -> None:
    async with serving() as graph:
        assert "extensions" not in await graph.answer("{ health }")
        refused = await graph.answer('mutation { createResource(input: { workflowId: "x" }) { id } }')
        assert "extensions" not in refused
        assert refused["data"] is None


async def test_a_mutation_that_is_refused_half_way_carries_the_cursor_of_what_was_done() -> None:
    async with serving() as graph:
        workflow = (await graph.create_workflow())["id"]
        query = """mutation($w: String!) {
            a: createResource(input: { workflowId: $w }) { id }
            b: createResource(input: { workflowId: "x" }) { id }
        }"""
        answer = await graph.answer(query, {"w": workflow})
        assert "extensions" in answer
        assert [error["path"] for error in part(answer, "errors", list)] == [["b"]]


async def test_a_forbidden_activity_says_why_for_people_and_for_programs() -> None:
    async with serving() as graph:
        resource = (await graph.create_resource((await graph.create_workflow())["id"]))["id"]
        query = """mutation($r: String!, $a: String!) {
            executeActivity(input: { resourceId: $r, activityId: $a }) { id } }"""
        error = await graph.error(query, {"r": resource, "a": "approve"})
        assert error["extensions"] == {
            "code": "ACTIVITY_NOT_ALLOWED",
            "state": "draft",
            "fromStates": ["review"],
        }
        assert error["locations"] == [{"line": 2, "column": 13}]
        error = await graph.error(query, {"r": resource, "a": "submit"})
        assert part(error, "extensions", dict)["condition"] == "field_exists:title"


async def test_a_log_that_cannot_be_written_is_said_to_be_so() -> None:
    async with serving() as graph:
        graph.log.full = True
        query = "mutation($i: WorkflowDefinitionInput!) { createWorkflow(input: $i) { id } }"
        given = {
            "name": "w",
            "states": [state("a")],
            "activities": [activity("go", ["a"], "a")],
            "initialState": "a",
        }
        error = await graph.error(query, {"i": given})
        assert error["extensions"] == {"code": "UNAVAILABLE"}
        assert "the event log could not be written: memory.db: no space left" in str(error["message"])


# --- JSON ---


async def test_json_comes_through_variables_and_literals_the_same() -> None:
    async with serving() as graph:
        workflow = (await graph.create_workflow())["id"]
        literal = (
            "mutation($w: String!, $v: JSON, $n: Int) { createResource(input: { workflowId: $w, data: { "
            'a: 1, b: [1.5, -0.5e3, "x\\ny", true, null, {}], c: { d: { e: [] } }, '
            "big: 18446744073709551615, v: $v, n: $n } }) { data } }"
        )
        data = {
            "a": 1,
            "b": [1.5, -500.0, "x\ny", True, None, {}],
            "c": {"d": {"e": []}},
            "big": 2**64 - 1,
            "v": {"deep": ["é\u0000"]},
            "n": 7,
        }
        answer = await graph.data(literal, {"w": workflow, "v": data["v"], "n": 7})
        assert part(answer, "createResource", dict)["data"] == data
        assert (await graph.create_resource(workflow, data=data))["data"] == data


@pytest.mark.parametrize("value", [2**64, -(2**63) - 1, 10**40])
async def test_an_integer_of_more_than_64_bits_is_refused(value: int) -> None:
    async with serving() as graph:
        query = 'mutation($d: JSON) { createResource(input: { workflowId: "w", data: $d }) { id } }'
        error = await graph.error(query, {"d": {"deep": [value]}})
        assert "deep[0]: an integer of more than 64 bits" in str(error["message"])
        assert error["extensions"] == {"code": "INVALID_INPUT"}


# --- variables ---


@pytest.mark.parametrize(
    ("variables", "says"),
    [
        (None, "Variable '$input'"),
        ({"input": None}, "Variable '$input'"),
        ({"input": 5}, "Variable '$input'"),
        ({"input": {"workflowId": 5}}, "String cannot represent a non string value: 5"),
        ({"input": {}}, "workflowId"),
        ({"input": {"workflowId": "w", "nonsense": 1}}, "nonsense"),
        ({"input": {"workflowId": "w", "initialState": ["a"]}}, "String cannot represent"),
    ],
)
async def test_variables_that_do_not_fit_are_refused_before_anything_is_done(
    variables: dict[str, object] | None, says: str
) -> None:
    async with serving() as graph:
        query = "mutation($input: ResourceCreateInput!) { createResource(input: $input) { id } }"
        answer = await graph.answer(query, variables)
        assert "data" not in answer
        errors = part(answer, "errors", list)
        assert any(says in error["message"] for error in errors), errors
        assert all(error["extensions"] == {"code": "INVALID_INPUT"} for error in errors)


async def test_a_value_that_an_enum_does_not_have_is_refused() -> None:
    async with serving() as graph:
        query = """mutation($t: StateType) {
            updateState(workflowId: "w", stateId: "s", input: { stateType: $t }) { id } }"""
        error = await graph.error(query, {"t": "NONSENSE"})
        assert "Value 'NONSENSE' does not exist in 'StateType' enum" in str(error["message"])


async def test_a_variable_left_out_is_not_the_same_as_null() -> None:
    query = """mutation($w: String!, $d: String, $n: String) {
        updateState(workflowId: $w, stateId: "draft", input: { description: $d, name: $n }) {
            name description } }"""
    async with serving() as graph:
        workflow = (
            await graph.create_workflow(
                states=[state("draft", description="d"), state("review"), state("approved")]
            )
        )["id"]
        kept = await graph.data(query, {"w": workflow, "n": "N"})
        assert kept["updateState"] == {"name": "N", "description": "d"}
        gone = await graph.data(query, {"w": workflow, "d": None})
        assert gone["updateState"] == {"name": "N", "description": None}
        assert "name: null" in str((await graph.error(query, {"w": workflow, "n": None}))["message"])


# --- what is not executed ---


async def test_a_subscription_is_told_where_to_go() -> None:
    async with serving() as graph:
        answer = await graph.answer("subscription { resourceUpdates { id } }")
        (error,) = part(answer, "errors", list)
        assert "WebSocket" in error["message"]
        assert "graphql-transport-ws" in error["message"]
        assert error["extensions"] == {"code": "OPERATION_NOT_SUPPORTED"}
        assert "data" not in answer


async def test_the_operation_is_the_one_that_is_named() -> None:
    async with serving() as graph:
        query = "query A { a: health } query B { b: health }"
        assert (await graph.answer(query, operation_name="B"))["data"] == {"b": "ok"}
        for name in (None, "", "C"):
            answer = await graph.answer(query, operation_name=name)
            (error,) = part(answer, "errors", list)
            assert error["extensions"] == {"code": "OPERATION_RESOLUTION_FAILURE"}
            assert "data" not in answer


async def test_what_takes_too_long_ends_with_an_error_and_a_mutation_may_have_happened() -> None:
    async with serving() as graph:
        workflow = (await graph.create_workflow())["id"]
        graph.log.gate.clear()
        query = "mutation($w: String!) { createResource(input: { workflowId: $w }) { id } }"
        answer = await graph.answer(query, {"w": workflow}, timeout_seconds=0.001)
        (error,) = part(answer, "errors", list)
        assert error["extensions"] == {"code": "TIMEOUT"}
        assert error["message"].startswith("not finished within 0.001 s; the mutation may have happened")


async def test_a_failure_of_ours_is_logged_and_tells_the_peer_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with serving() as graph:

        def fail(_id: str) -> NoReturn:
            raise RuntimeError("secret detail")

        monkeypatch.setattr(graph.engine.workflows, "workflow", fail)
        with structlog.testing.capture_logs() as logs:
            answer = await graph.answer('{ a: health workflow(id: "x") { id } }')
        assert answer["data"] == {"a": "ok", "workflow": None}
        assert answer["errors"] == [
            {
                "message": "internal error",
                "locations": [{"line": 1, "column": 13}],
                "path": ["workflow"],
                "extensions": {"code": "INTERNAL"},
            }
        ]
        (entry,) = logs
        assert (entry["event"], entry["log_level"], entry["path"]) == ("resolver_failed", "error", "workflow")
        assert isinstance(entry["exc_info"], RuntimeError)


async def test_an_answer_of_ours_that_breaks_the_schema_is_a_failure_of_ours(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with serving() as graph:
        monkeypatch.setattr(graph.engine.workflows, "workflow", lambda _id: {"id": "x", "name": None})
        with structlog.testing.capture_logs() as logs:
            error = await graph.error('{ workflow(id: "x") { name } }')
        assert (error["message"], error["path"]) == ("internal error", ["workflow", "name"])
        assert [entry["path"] for entry in logs] == ["workflow.name"]


def test_errors_alone_are_an_answer_without_data() -> None:
    error = GraphQLError(message="m", extensions={"code": "X"})
    expected = {"errors": [{"message": "m", "extensions": {"code": "X"}}]}
    assert msgspec.json.decode(encode_errors([error])) == expected
