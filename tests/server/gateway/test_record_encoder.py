"""Events that are encoded from a record's body are those that are derived and encoded, byte for byte."""

from __future__ import annotations

from typing import cast

import msgspec
import pytest
from graphql import (
    GraphQLNamedOutputType,
    GraphQLObjectType,
    GraphQLUnionType,
    get_named_type,
    is_leaf_type,
    is_non_null_type,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from circuit_breaker_server.engine.event_derivation import EVENT_BODIES, derive
from circuit_breaker_server.engine.events import whole
from circuit_breaker_server.engine.record_bodies import VersionedBody
from circuit_breaker_server.gateway.projection import Projection
from circuit_breaker_server.gateway.record_encoder import NO_EVENTS, RecordEncoder
from circuit_breaker_server.gateway.subscription_plan import make_plan
from circuit_breaker_server.graphql.documents import Documents
from circuit_breaker_server.graphql.schema import load_schema
from circuit_breaker_server.log.event_log import LogCorruptError, Record
from tests.server.gateway.record_bodies import BODIES, records

SCHEMA = load_schema()
STREAMS = sorted(EVENT_BODIES.fields)
KINDS = sorted(BODIES, key=lambda body: body.__name__)
DOCUMENTS = Documents(SCHEMA)
SEQUENCE = frozenset({"log:read:sequence"})

many = settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))


def output_of(stream: str) -> GraphQLNamedOutputType:
    root = SCHEMA.subscription_type
    assert root is not None
    return cast("GraphQLNamedOutputType", get_named_type(root.fields[stream].type))


def projection_of(stream: str, selection: str, withheld: frozenset[str] = frozenset()) -> Projection:
    root = SCHEMA.subscription_type
    assert root is not None
    needed = [f'{name}: "x"' for name, a in root.fields[stream].args.items() if is_non_null_type(a.type)]
    given_arguments = f"({', '.join(needed)})" if needed else ""
    text = f"subscription {{ {stream}{given_arguments} {selection} }}"
    return make_plan(SCHEMA, DOCUMENTS.get(text)).projection(withheld)


@st.composite
def selections(draw: st.DrawFn, output: GraphQLNamedOutputType, depth: int = 2) -> str:
    """Generate a selection set: leaves, aliases, objects, fragments, directives."""
    if isinstance(output, GraphQLUnionType):
        return "{ __typename }"
    assert isinstance(output, GraphQLObjectType)
    usable = [name for name, f in output.fields.items() if depth or is_leaf_type(get_named_type(f.type))]
    parts = []
    for name in draw(st.lists(st.sampled_from([*usable, "__typename"]), min_size=1, unique=True)):
        alias = f"a_{name}: " if draw(st.integers(0, 3)) == 0 else ""
        directive = draw(st.sampled_from(["", "", "", " @include(if: true)", " @skip(if: true)"]))
        inner = ""
        if name != "__typename":
            named = cast("GraphQLNamedOutputType", get_named_type(output.fields[name].type))
            inner = "" if is_leaf_type(named) else draw(selections(named, depth - 1))
        part = f"{alias}{name}{directive} {inner}"
        parts.append(f"... on {output.name} {{ {part} }}" if draw(st.integers(0, 4)) == 0 else part)
    return f"{{ {' '.join(parts)} }}"


def leaves(stream: str) -> str:
    output = output_of(stream)
    assert isinstance(output, GraphQLObjectType)
    names = [name for name, field in output.fields.items() if is_leaf_type(get_named_type(field.type))]
    return f"{{ {' '.join(names)} }}"


def derived(record: Record, stream: str, projection: Projection) -> list[tuple[int, bytes]]:
    return [
        (index, projection.encode(event.value))
        for index, event in enumerate(derive(record))
        if event.stream == stream
    ]


def encoded(record: Record, encoder: RecordEncoder) -> list[tuple[int, bytes]]:
    body = encoder.read(record)
    events = encoder.by_body.get(type(body), NO_EVENTS)
    return [
        (index, encoder.encode(events, record, body, item, index))
        for index, item in (events.items(body) if events.only is None else events.only)
    ]


@pytest.mark.parametrize("stream", STREAMS)
@many
@given(data=st.data())
def test_what_is_taken_from_a_body_is_what_is_derived(stream: str, data: st.DataObject) -> None:
    selection = data.draw(selections(output_of(stream)), "selection")
    withheld = data.draw(st.sampled_from([frozenset(), SEQUENCE]), "withheld")
    projection = projection_of(stream, selection, withheld)
    encoder = RecordEncoder(projection, stream, derive, EVENT_BODIES)
    for _ in range(4):
        record = data.draw(st.sampled_from(KINDS).flatmap(records), "record")
        assert encoded(record, encoder) == derived(record, stream, projection)


@pytest.mark.parametrize("body", KINDS)
@many
@given(data=st.data())
def test_the_leaves_and_values_of_every_kind_of_record_are_the_derived_ones(
    body: type[VersionedBody], data: st.DataObject
) -> None:
    record = data.draw(records(body))
    for stream in STREAMS:
        projection = projection_of(stream, leaves(stream))
        encoder = RecordEncoder(projection, stream, derive, EVENT_BODIES)
        assert encoded(record, encoder) == derived(record, stream, projection)
        read = encoder.read(record)
        events = encoder.by_body.get(type(read), NO_EVENTS)
        found = [whole(dict(events.value(record, read, item))) for _, item in events.items(read)]
        assert found == [event.whole for event in derive(record) if event.stream == stream]


def resource_changed(**changed: object) -> Record:
    resource = {
        "id": "r",
        "workflowId": "w",
        "state": "s",
        "stateDefinition": {"name": "S"},
        "data": {"n": 1},
        "metadata": {},
        "createdAt": "c",
        "updatedAt": "u",
        "history": [],
    } | changed
    data = msgspec.json.encode({"type": "resource_changed", "v": 1, "resource": resource})
    return Record(offset=7, subject="resource.w.r", id="0" * 32, time_ms=0, data=data)


def test_leaves_are_taken_from_the_body_without_a_fallback() -> None:
    projection = projection_of("resourceUpdates", "{ id state renamed: data }")
    encoder = RecordEncoder(projection, "resourceUpdates", derive, EVENT_BODIES)
    assert encoded(resource_changed(), encoder) == [
        (0, b'{"data":{"resourceUpdates":{"id":"r","state":"s","renamed":{"n":1}}}')
    ]
    assert encoder.take_fallbacks() == 0


def test_a_value_that_the_schema_does_not_promise_is_derived_and_counted() -> None:
    projection = projection_of("resourceUpdates", "{ id data }")
    encoder = RecordEncoder(projection, "resourceUpdates", derive, EVENT_BODIES)
    ((_, payload),) = encoded(resource_changed(data=None), encoder)
    assert b'"errors"' in payload
    assert encoder.take_fallbacks() == 1
    assert encoder.take_fallbacks() == 0


def test_without_sources_every_event_is_derived_and_counted() -> None:
    projection = projection_of("resourceUpdates", "{ id }")
    encoder = RecordEncoder(projection, "resourceUpdates", derive, None)
    assert encoded(resource_changed(), encoder) == [(0, b'{"data":{"resourceUpdates":{"id":"r"}}')]
    assert encoder.take_fallbacks() == 1


@pytest.mark.parametrize("subjects", [(">",), ("resource.*.*",), ("resource.*.*", "trigger.w.*")])
def test_a_record_that_cannot_be_read_raises_whatever_is_selected(subjects: tuple[str, ...]) -> None:
    projection = projection_of("resourceUpdates", "{ id }")
    encoder = RecordEncoder(projection, "resourceUpdates", derive, EVENT_BODIES, subjects=subjects)
    with pytest.raises(LogCorruptError):
        encoder.read(resource_changed(metadata=None, updatedAt=3))
