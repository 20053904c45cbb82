"""Events: open to newer servers, lazy about JSON, equal by value."""

from __future__ import annotations

import msgspec
import pytest

from circuit_breaker_sdk.events import Resource
from circuit_breaker_sdk.types import WorkflowEvent, WorkflowEventType

EVENT = (
    b'{"eventType":"RESOURCE_ARCHIVED","workflowId":"w","timestamp":"2026-01-02T03:04:05Z",'
    b'"added":{"by":"a newer server"},"data":{"b":[1],"a":null}}'
)
RESOURCE = (
    b'{"id":"r","workflowId":"w","state":"s","createdAt":"2026-01-02T03:04:05Z",'
    b'"updatedAt":"2026-01-02T03:04:05Z","data":{"1":"one"}}'
)


def decode_event(payload: bytes = EVENT) -> WorkflowEvent:
    return msgspec.json.decode(payload, type=WorkflowEvent)


def test_an_unknown_enum_value_stays_readable_and_an_added_field_is_ignored() -> None:
    event = decode_event()
    assert event.type == "RESOURCE_ARCHIVED"
    assert isinstance(event.type, WorkflowEventType)
    assert (event.type.known, WorkflowEventType.RESOURCE_CREATED.known) == (False, True)
    assert {event.type: 1}["RESOURCE_ARCHIVED"] == 1  # type: ignore[index]  # it is a str too
    assert event.message == "RESOURCE_ARCHIVED: workflow w"


def test_unknown_enum_values_are_not_remembered() -> None:
    before = len(WorkflowEventType)
    WorkflowEventType("NEW")
    assert (len(WorkflowEventType), "NEW" in WorkflowEventType._value2member_map_) == (before, False)
    with pytest.raises(ValueError, match="5"):
        WorkflowEventType(5)  # type: ignore[arg-type]  # what is refused


def test_json_is_decoded_once_and_not_before_it_is_asked_for() -> None:
    event = decode_event()
    assert isinstance(event._data, msgspec.Raw)
    assert event.data == {"b": [1], "a": None}
    assert event.data is event.data


def test_events_are_equal_by_value_whether_their_json_was_read_or_how_it_was_written() -> None:
    one, two = decode_event(), decode_event(EVENT.replace(b'"b":[1],"a":null', b'"a": null, "b": [1]'))
    assert one.data
    assert one == two
    assert one != decode_event(EVENT.replace(b"[1]", b"[2]"))
    assert one != object()
    with pytest.raises(TypeError):
        hash(one)


def test_events_are_frozen() -> None:
    with pytest.raises(AttributeError):
        decode_event().workflow_id = "x"  # type: ignore[misc]  # what is refused


@pytest.mark.parametrize("read_before", [True, False])
def test_data_as_gives_the_same_whether_data_was_read_before(read_before: bool) -> None:
    resource = msgspec.json.decode(RESOURCE, type=Resource)
    if read_before:
        assert resource.data == {"1": "one"}
    assert resource.data_as(dict[int, str]) == {1: "one"}
    with pytest.raises(msgspec.ValidationError):
        resource.data_as(list[int])
