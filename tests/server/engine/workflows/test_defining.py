"""What a workflow may be, and what is refused."""

from __future__ import annotations

import math

import msgspec
import pytest

from circuit_breaker_server.engine.errors import EngineError, ErrorCode
from circuit_breaker_server.engine.json_values import as_json
from circuit_breaker_server.engine.validation import json_object
from circuit_breaker_server.engine.workflows.definition_validation import (
    add_state,
    change_state,
    define_workflow,
)
from circuit_breaker_server.engine.workflows.definitions import StateDefinition, WorkflowDefinition
from circuit_breaker_server.engine.workflows.inputs import StateUpdate
from circuit_breaker_server.engine.workflows.workflow import Workflow
from tests.server.engine.worlds import activity, review, state, state_input, workflow_input

AT = "2030-01-02T03:04:05.678Z"
LATER = "2030-01-02T03:04:06.678Z"
OFF = {"enabled": False, "delaySeconds": 5, "targetState": "draft", "conditions": []}


def define(**changes: object) -> WorkflowDefinition:
    return define_workflow(
        workflow_input(review(**changes)), workflow_id="w", at=AT, is_workflow=lambda id_: id_ == "other"
    )


def refusal_of(**changes: object) -> str:
    with pytest.raises(EngineError) as raised:
        define(**changes)
    assert raised.value.code is ErrorCode.INVALID_INPUT
    return str(raised.value)


def with_states(*more: dict[str, object]) -> dict[str, object]:
    return {"states": [state("draft"), state("review"), state("approved"), *more]}


def with_activity(**changes: object) -> dict[str, object]:
    return {"activities": [{**activity("a", ["draft"], "review"), **changes}]}


def test_a_definition_keeps_every_field_it_was_given() -> None:
    given = review(
        description="how documents pass",
        states=[
            state("draft", description="being written", stateType="INITIAL", isInitial=True),
            state("held", stateType="WAITING", isTerminal=True, config={"metadata": {"colour": ["red"]}}),
        ],
        activities=[activity("hold", ["draft"], "held", "field_exists:a", name="Hold", description="stop")],
    )
    made = define_workflow(workflow_input(given), workflow_id="w", at=AT, is_workflow=lambda _id: False)
    value = Workflow(made, created=1, last=1).value()
    assert value == {
        "id": "w",
        "name": "document review",
        "description": "how documents pass",
        "initialState": "draft",
        "createdAt": AT,
        "updatedAt": AT,
        "activities": [
            {
                "id": "hold",
                "name": "Hold",
                "fromStates": ["draft"],
                "toState": "held",
                "conditions": ["field_exists:a"],
                "description": "stop",
            }
        ],
        "states": [
            {
                "id": "draft",
                "name": "Draft",
                "description": "being written",
                "stateType": "INITIAL",
                "isInitial": True,
                "isTerminal": False,
                "config": None,
                "allowedTransitions": ["held"],
                "availableActivities": value["activities"],
                "createdAt": AT,
                "updatedAt": AT,
            },
            {
                "id": "held",
                "name": "Held",
                "description": None,
                "stateType": "WAITING",
                "isInitial": False,
                "isTerminal": True,
                "config": {
                    "timeoutSeconds": None,
                    "autoTransition": None,
                    "notifications": None,
                    "metadata": {"colour": ["red"]},
                },
                "allowedTransitions": [],
                "availableActivities": [],
                "createdAt": AT,
                "updatedAt": AT,
            },
        ],
    }


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"name": ""}, "name: must not be empty"),
        ({"name": " \t"}, "name: must not be empty"),
        ({"name": "n" * 257}, "name: 257 characters"),
        ({"name": "a\x00b"}, "cannot be printed"),
        ({"description": "d" * 10_001}, "description: 10001 characters"),
        ({"states": []}, "states: a workflow needs at least one state"),
        ({"activities": []}, "activities: a workflow needs at least one activity"),
        ({"initialState": "nowhere"}, "initialState: there is no state 'nowhere'; the states are 'draft'"),
        (with_states(state("draft")), "states: 'draft' is there twice"),
        (with_states(*(state(f"s{n}") for n in range(998))), "states: 1001 of them"),
        (with_states(state("")), "states[3].id: must not be empty"),
        (with_states(state("x" * 300)), "states[3].id: 300 characters"),
        (with_states(state("x", name=" ")), "states[3].name: must not be empty"),
        (with_states(state("x", description="d" * 20_000)), "states[3].description: 20000 characters"),
        (
            with_states(state("x", isInitial=True)),
            "states[3].isInitial: the workflow's initialState is 'draft'",
        ),
        (
            with_states(state("x", stateType="INITIAL")),
            "states[3].stateType: only the workflow's initialState",
        ),
        (with_states(state("x", config={"timeoutSeconds": 60})), "states[3].config.timeoutSeconds"),
        (with_states(state("x", config={"timeoutSeconds": 0})), "states[3].config.timeoutSeconds"),
        (with_states(state("x", config={"autoTransition": {**OFF, "enabled": True}})), "autoTransition"),
        (
            with_states(state("x", config={"autoTransition": {**OFF, "delaySeconds": -1}})),
            "delaySeconds: -1 is less than 0",
        ),
        (
            with_states(state("x", config={"autoTransition": {**OFF, "targetState": "nowhere"}})),
            "targetState: there is no state 'nowhere'",
        ),
        (
            with_states(state("x", config={"autoTransition": {**OFF, "conditions": ["soon"]}})),
            "autoTransition.conditions[0]: unknown condition 'soon'",
        ),
        (
            with_states(state("x", config={"notifications": {"enabled": True, "channels": ["mail"]}})),
            "notifications: this server sends no messages yet",
        ),
        (with_states(state("x", config={"metadata": math.nan})), "config.metadata: not a finite number"),
        (
            with_states(
                state("x", config={"notifications": {"enabled": False, "channels": [], "templates": 2**70}})
            ),
            "notifications.templates: an integer of more than 64 bits",
        ),
        (with_states(state("x", config={"metadata": "m" * 70_000})), "state 'x' with its activities takes"),
        (
            with_states(*(state(f"x{i}", config={"metadata": "m" * 60_000}) for i in range(20))),
            "the workflow takes",
        ),
        (with_states(*(state(f"s{i}") for i in range(998))), "states: 1001 of them; at most 1000"),
        (with_activity(id=""), "activities[0].id: must not be empty"),
        (with_activity(name=""), "activities[0].name: must not be empty"),
        (with_activity(description="d" * 10_001), "activities[0].description: 10001 characters"),
        (with_activity(fromStates=[]), "activities[0].fromStates: an activity needs at least one state"),
        (with_activity(fromStates=["draft", "draft"]), "activities[0].fromStates: 'draft' is there twice"),
        (with_activity(fromStates=["draft", "x"]), "activities[0].fromStates: there is no state 'x'"),
        (with_activity(toState="x"), "activities[0].toState: there is no state 'x'"),
        (with_activity(conditions=["is_good"]), "activities[0].conditions[0]: unknown condition 'is_good'"),
        (with_activity(conditions=[""]), "activities[0].conditions[0]: unknown condition ''"),
        (with_activity(conditions=["not:" * 300 + "field_exists:x"]), "conditions[0]: 1214 characters"),
        (with_activity(conditions=["field_exists:x"] * 51), "activities[0].conditions: 51 of them"),
        (
            {"activities": [activity("a", ["draft"], "review"), activity("a", ["review"], "draft")]},
            "activities: 'a' is there twice",
        ),
        (
            {"activities": [activity(f"a{i}", ["draft"], "review") for i in range(5001)]},
            "activities: 5001 of them; at most 5000",
        ),
        (
            {
                "activities": [
                    activity(f"a{i}", ["draft"], "review", description="d" * 9_000) for i in range(8)
                ]
            },
            "state 'draft' with its activities takes",
        ),
        (
            with_states(state("x", workflowId="one"), state("y", workflowId="two")),
            "workflowId names different workflows ('one', 'two')",
        ),
        (
            with_states(state("x", workflowId="other")),
            "workflowId 'other' is another workflow; use createState",
        ),
    ],
)
def test_a_workflow_that_cannot_work_is_refused_with_the_place(changes: dict[str, object], says: str) -> None:
    assert says in refusal_of(**changes)


def test_the_states_of_a_new_workflow_may_share_a_word_for_it() -> None:
    define(
        states=[
            state(id_, workflowId=word)
            for id_, word in zip(["draft", "review", "approved"], ["new", "", "new"], strict=True)
        ]
    )


def test_a_condition_list_may_be_empty_and_settings_that_are_off_are_kept() -> None:
    notifications = {"enabled": False, "channels": ["mail"], "templates": {"t": 1}}
    made = define(**with_states(state("x", config={"autoTransition": OFF, "notifications": notifications})))
    config = as_json(made.states[3])["config"]
    assert isinstance(config, dict)
    assert config["autoTransition"] == OFF
    assert config["notifications"] == notifications


def test_the_initial_state_is_initial_and_a_terminal_state_terminal_whatever_the_flags_say() -> None:
    made = define(
        states=[
            state("draft", isInitial=None),
            state("review", isTerminal=None),
            state("approved", stateType="TERMINAL"),
        ]
    )
    assert [s.is_initial for s in made.states] == [True, False, False]
    assert [s.is_terminal for s in made.states] == [False, False, True]


# --- createState, updateState -----------------------------------------------------------------------


def workflow() -> Workflow:
    return Workflow(define(), created=1, last=1)


def add_refusal(id_: str, **more: object) -> str:
    with pytest.raises(EngineError) as raised:
        add_state(workflow(), state_input("w", id_, **more), at=LATER)
    assert raised.value.code is ErrorCode.INVALID_INPUT
    return str(raised.value)


def change(state_id: str = "review", **update: object) -> StateDefinition:
    return change_state(workflow(), state_id, msgspec.convert(update, StateUpdate), at=LATER)


def change_refusal(state_id: str = "review", **update: object) -> str:
    with pytest.raises(EngineError) as raised:
        change(state_id, **update)
    assert raised.value.code is ErrorCode.INVALID_INPUT
    return str(raised.value)


def test_an_added_state_has_the_time_of_its_addition_and_is_never_initial() -> None:
    added = add_state(workflow(), state_input("w", "archived", isTerminal=True), at=LATER)
    assert (added.created_at, added.updated_at) == (LATER, LATER)
    assert (added.is_initial, added.is_terminal) == (False, True)


@pytest.mark.parametrize(
    ("id_", "more", "says"),
    [
        ("draft", {}, "id: workflow 'w' already has a state 'draft'"),
        ("", {}, "id: must not be empty"),
        ("x", {"isInitial": True}, "isInitial: the workflow's initialState is 'draft'"),
        ("x", {"stateType": "INITIAL"}, "stateType: only the workflow's initialState"),
        ("x", {"config": {"timeoutSeconds": 1}}, "config.timeoutSeconds"),
        ("x", {"config": {"metadata": "m" * 70_000}}, "takes"),
    ],
)
def test_a_state_that_does_not_fit_the_workflow_is_not_added(
    id_: str, more: dict[str, object], says: str
) -> None:
    assert says in add_refusal(id_, **more)


def test_an_added_state_may_be_the_target_of_its_own_settings() -> None:
    add_state(
        workflow(), state_input("w", "x", config={"autoTransition": {**OFF, "targetState": "x"}}), at=AT
    )


def test_a_workflow_has_at_most_a_thousand_states() -> None:
    full = Workflow(define(**with_states(*(state(f"s{i}") for i in range(997)))), created=1, last=1)
    with pytest.raises(EngineError, match="already has 1000 states"):
        add_state(full, state_input("w", "one more"), at=AT)


def test_an_update_changes_what_it_names_and_nothing_else() -> None:
    before = workflow().states["review"]
    assert change(name="Reading") == msgspec.structs.replace(before, name="Reading", updated_at=LATER)
    assert change(description="d").description == "d"
    assert change(stateType="WAITING").state_type == "WAITING"
    assert change(isTerminal=True).is_terminal
    assert change(config={"metadata": 1}).config is not None


def test_null_takes_away_a_description_and_settings() -> None:
    given = with_states(state("x", description="d", config={"metadata": 1}))
    held = Workflow(define(**given), created=1, last=1)
    update = msgspec.convert({"description": None, "config": None}, StateUpdate)
    changed = change_state(held, "x", update, at=LATER)
    assert (changed.description, changed.config) == (None, None)


def test_the_type_terminal_makes_a_state_terminal_and_another_type_leaves_it_so() -> None:
    assert change(stateType="TERMINAL").is_terminal
    assert change("approved", stateType="NORMAL").is_terminal
    assert not change("approved", stateType="NORMAL", isTerminal=False).is_terminal


@pytest.mark.parametrize(
    ("state_id", "update", "says"),
    [
        ("review", {}, "names nothing to change"),
        ("review", {"name": None}, "name: null is not allowed"),
        ("review", {"stateType": None}, "stateType: null is not allowed"),
        ("review", {"isTerminal": None}, "isTerminal: null is not allowed"),
        ("review", {"name": ""}, "name: must not be empty"),
        ("review", {"description": "d" * 10_001}, "description: 10001 characters"),
        ("review", {"stateType": "INITIAL"}, "stateType: only the workflow's initialState"),
        (
            "review",
            {"stateType": "TERMINAL", "isTerminal": False},
            "isTerminal: a state of the type TERMINAL",
        ),
        ("approved", {"isTerminal": False}, "isTerminal: a state of the type TERMINAL"),
        ("review", {"config": {"timeoutSeconds": 1}}, "config.timeoutSeconds"),
        ("review", {"config": {"autoTransition": {**OFF, "targetState": "x"}}}, "there is no state 'x'"),
        ("review", {"config": {"metadata": "m" * 70_000}}, "takes"),
    ],
)
def test_an_update_that_contradicts_the_workflow_is_refused(
    state_id: str, update: dict[str, object], says: str
) -> None:
    assert says in change_refusal(state_id, **update)


# --- data -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ([], "data must be an object, not a list"),
        ("x", "data must be an object, not a text"),
        (1, "data must be an object, not a number"),
        (1.5, "data must be an object, not a number"),
        (False, "data must be an object, not a boolean"),
        (object(), "data must be an object, not something that is not JSON"),
        ({"a": [1, math.inf]}, "data.a[1]: not a finite number"),
        ({"a": "x" * 100}, "data takes 108 bytes as JSON; at most 100"),
    ],
)
def test_data_is_an_object_of_bounded_size(value: object, says: str) -> None:
    with pytest.raises(EngineError) as raised:
        json_object(value, "data", max_bytes=100)
    assert says in str(raised.value)


def test_no_data_is_an_empty_object() -> None:
    assert json_object(None, "data", max_bytes=100) == {}
