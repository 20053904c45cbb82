"""The sentences of workflow events, and which fields a peer may leave out."""

from __future__ import annotations

import msgspec
import pytest

from circuit_breaker_sdk.types import ActivityInput, State, StateType, WorkflowEvent, WorkflowEventType


@pytest.mark.parametrize(
    ("event_type", "data", "message"),
    [
        ("RESOURCE_CREATED", {"state": "draft"}, "resource r was created in state draft"),
        (
            "RESOURCE_STATE_CHANGED",
            {"fromState": "draft", "toState": "{subject}"},
            "resource r went from draft to {subject}",
        ),
        ("ACTIVITY_EXECUTED", {"activityId": "submit"}, "activity submit was executed on resource r"),
        ("WORKFLOW_UPDATED", None, "resource r was changed"),
        ("AGENT_TRIGGERED", ["no object"], "agent ? was started for resource r"),
    ],
)
def test_each_event_says_in_one_sentence_what_happened(event_type: str, data: object, message: str) -> None:
    payload = {
        "eventType": event_type,
        "workflowId": "w",
        "resourceId": "r",
        "timestamp": "2026-01-02T03:04:05Z",
        "data": data,
    }
    event = msgspec.json.decode(msgspec.json.encode(payload), type=WorkflowEvent)
    assert event.message == message
    assert event.type is WorkflowEventType(event_type)


def test_what_a_document_does_not_select_has_a_default_and_what_identifies_is_required() -> None:
    state = msgspec.json.decode(b'{"id":"s","name":"S","stateType":"PARKED"}', type=State)
    assert (state.state_type, state.state_type.known, state.config) == ("PARKED", False, None)
    assert StateType("REVIEW") is StateType.REVIEW
    with pytest.raises(msgspec.ValidationError, match="name"):
        msgspec.json.decode(b'{"id":"s","stateType":"NORMAL"}', type=State)


def test_an_input_sends_null_and_leaves_unset_out() -> None:
    given = ActivityInput(id="a", from_states=["x"], to_state="y", description=None)
    assert msgspec.to_builtins(given) == {
        "id": "a",
        "fromStates": ["x"],
        "toState": "y",
        "conditions": (),
        "description": None,
    }
