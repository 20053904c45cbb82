"""Records written in an older version: the same body comes back, or nothing is written."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from circuit_breaker_server.engine.errors import EngineError, ErrorCode
from circuit_breaker_server.engine.record_bodies import (
    NewerRecord,
    VersionedBody,
    encode_body,
    require_readable,
)
from circuit_breaker_server.engine.workflows.definitions import StateDefinition, StateType
from circuit_breaker_server.engine.workflows.records import (
    ActivityExecuted,
    ResourceCreated,
    ResourceImage,
    StateCreated,
    decode_body,
)
from circuit_breaker_server.log.event_log import LogCorruptError, Record
from tests.server.engine.version_steps import ADDED, NEW, OLD, put_steps


@pytest.fixture(autouse=True, scope="module")
def _steps() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as monkeypatch:
        put_steps(monkeypatch)
        yield


def image(data: bytes = b"{}") -> ResourceImage:
    return ResourceImage(
        id="r",
        workflow_id="w",
        state="draft",
        state_definition=msgspec.Raw(b"{}"),
        data=msgspec.Raw(data),
        metadata=msgspec.Raw(b"{}"),
        created_at="x",
        updated_at="x",
        history=(),
    )


STATE = StateDefinition(
    id="s",
    name="S",
    description=None,
    state_type=StateType.NORMAL,
    is_initial=False,
    is_terminal=False,
    config=None,
    created_at="x",
    updated_at="x",
)


def record(data: bytes) -> Record:
    return Record(offset=7, subject="resource.w.r", id="0" * 32, time_ms=0, data=data)


def fields(data: bytes) -> dict[str, object]:
    return msgspec.json.decode(data, type=dict[str, object])


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)
images = json_values.map(lambda value: image(msgspec.json.encode(value)))
who = st.none() | st.text()
bodies: st.SearchStrategy[VersionedBody] = st.one_of(
    st.builds(ResourceCreated, resource=images, triggered_by=who),
    st.builds(
        ActivityExecuted,
        activity_id=st.text(),
        from_state=st.text(),
        to_state=st.text(),
        resource=images,
        triggered_by=who,
    ),
)


@given(bodies)
def test_what_can_be_written_in_an_older_version_is_read_as_the_same_body(body: VersionedBody) -> None:
    try:
        old = encode_body(body, OLD)
    except EngineError:
        assert isinstance(body, ResourceCreated)
        assert body.triggered_by is not None
        return
    assert fields(old)["v"] == OLD
    assert decode_body(record(old)) == body


def test_the_older_version_lacks_what_was_added_and_members_keep_their_bytes() -> None:
    body = ResourceCreated(resource=image(b'{"n": 1.10, "big": 12345678901234567890123}'))
    old = encode_body(body, OLD)
    assert ADDED not in fields(old)
    assert b'{"n": 1.10, "big": 12345678901234567890123}' in old
    assert decode_body(record(old)) == body


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (
            ResourceCreated(resource=image(), triggered_by="ada"),
            "(resource_created): a value in it would be lost",
        ),
        (
            StateCreated(workflow_id="w", state=STATE),
            "(state_created): there is no state_created in it",
        ),
    ],
)
def test_what_an_older_version_cannot_hold_is_refused_with_what_to_do(body: VersionedBody, says: str) -> None:
    with pytest.raises(EngineError) as raised:
        encode_body(body, OLD)
    assert raised.value.code is ErrorCode.INVALID_INPUT
    assert says in str(raised.value)
    assert "circuit-breaker nodes URL --raise-format" in str(raised.value)
    assert raised.value.facts == {"format": OLD}


def test_a_version_without_a_step_down_is_refused() -> None:
    with pytest.raises(EngineError, match="cannot hold this"):
        encode_body(ResourceCreated(resource=image()), OLD - 1)


def test_a_record_is_readable_up_to_the_version_that_a_node_reads() -> None:
    require_readable(record(b'{"type":"something","v":3}'), 3)
    with pytest.raises(NewerRecord, match="has version 3, this program reads up to 2; run the newer"):
        require_readable(record(b'{"type":"something","v":3}'), 2)
    with pytest.raises(LogCorruptError, match="has no version"):
        require_readable(record(b'{"type":"something"}'), 3)


def test_the_present_version_is_written_without_a_step() -> None:
    body = ResourceCreated(resource=image(), triggered_by="ada")
    assert encode_body(body, NEW) == encode_body(body) == msgspec.json.encode(body)
