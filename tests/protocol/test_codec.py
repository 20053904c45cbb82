"""The codec writes one form only, reads every form that does no harm, and refuses the rest by one error."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from circuit_breaker_sdk.errors import GraphQLError, UsageError
from circuit_breaker_sdk.protocol.codec import (
    InvalidMessage,
    InvalidPayload,
    decode_message,
    encode_message,
    next_prefix,
)
from circuit_breaker_sdk.protocol.lenient_json import json_defect
from circuit_breaker_sdk.protocol.messages import (
    Complete,
    ConnectionAck,
    ConnectionInit,
    Error,
    Message,
    Next,
    Ping,
    Pong,
    Subscribe,
)
from tests.protocol.strategies import json_objects, messages

WRITTEN: list[tuple[Message, bytes]] = [
    (ConnectionInit(), b'{"type":"connection_init"}'),
    (ConnectionInit({"token": "t"}), b'{"type":"connection_init","payload":{"token":"t"}}'),
    (ConnectionAck(), b'{"type":"connection_ack"}'),
    (ConnectionAck({}), b'{"type":"connection_ack","payload":{}}'),
    (Ping(), b'{"type":"ping"}'),
    (Ping({"n": 1}), b'{"type":"ping","payload":{"n":1}}'),
    (Pong(), b'{"type":"pong"}'),
    (Pong({"n": 1}), b'{"type":"pong","payload":{"n":1}}'),
    (Subscribe("1", "{ x }"), b'{"id":"1","type":"subscribe","payload":{"query":"{ x }"}}'),
    (
        Subscribe("1", "{ x }", {"v": None}, "Q", {"resume": {"after": "c"}}),
        (
            b'{"id":"1","type":"subscribe","payload":{"query":"{ x }","variables":{"v":null},'
            b'"operationName":"Q","extensions":{"resume":{"after":"c"}}}}'
        ),
    ),
    (Next("1", b'{"data":{"x":1}}'), b'{"id":"1","type":"next","payload":{"data":{"x":1}}}'),
    (Error("1", ()), b'{"id":"1","type":"error","payload":[]}'),
    (
        Error("1", (GraphQLError(message="no", path=("a", 0), extensions={"code": "C"}),)),
        b'{"id":"1","type":"error","payload":[{"message":"no","path":["a",0],"extensions":{"code":"C"}}]}',
    ),
    (
        Error("1", (GraphQLError(message="no", locations=({"line": 1, "column": 2},)),)),
        b'{"id":"1","type":"error","payload":[{"message":"no","locations":[{"line":1,"column":2}]}]}',
    ),
    (Complete('"'), rb'{"id":"\"","type":"complete"}'),
]


@pytest.mark.parametrize(("message", "data"), WRITTEN)
def test_each_message_has_one_written_form(message: Message, data: bytes) -> None:
    assert encode_message(message) == data


@pytest.mark.parametrize(("message", "data"), WRITTEN)
def test_each_written_form_is_read_back(message: Message, data: bytes) -> None:
    assert decode_message(data) == message


@given(messages)
def test_any_message_survives_writing_and_reading(message: Message) -> None:
    data = encode_message(message)
    assert decode_message(data) == message
    assert list(json.loads(data)) == [key for key in ("id", "type", "payload") if key in json.loads(data)]


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1), json_objects)
def test_prefix_payload_and_brace_are_the_written_next(id_: str, value: dict[str, object]) -> None:
    payload = json.dumps(value).encode()
    assert next_prefix(id_) + payload + b"}" == encode_message(Next(id_, payload))


@pytest.mark.parametrize("kind", ["connection_init", "connection_ack", "ping", "pong"])
def test_a_null_payload_is_no_payload(kind: str) -> None:
    assert decode_message(b'{"type":"%b","payload":null}' % kind.encode()) == decode_message(
        b'{"type":"%b"}' % kind.encode()
    )


def test_null_in_a_subscribe_is_the_same_as_nothing() -> None:
    data = b'{"id":"1","type":"subscribe","payload":{"query":"q","variables":null,"operationName":null}}'
    assert decode_message(data) == Subscribe("1", "q")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b' {\n"payload" : {"query":"q","x":1}, "type":"subscribe","id":"1","y":[]} ', Subscribe("1", "q")),
        (b'{"type":"ping","id":{"any":[1]}}', Ping()),
        (b'{"type":"next","id":"1","payload": {"data":1} }', Next("1", b'{"data":1}')),
        (b'{"type":"complete","id":"1","payload":[1]}', Complete("1")),
        (b'{"type":"c\\u006fmplete","id":"\\u0031"}', Complete("1")),
        (b'{"type":"ping","type":"complete","id":"1","id":"2"}', Complete("2")),
    ],
)
def test_order_whitespace_escapes_and_unknown_keys_do_no_harm(data: bytes, message: Message) -> None:
    assert decode_message(data) == message


def test_ka_is_ignored() -> None:
    assert decode_message(b'{"type":"ka"}') is None


def test_slips_in_an_errors_details_do_not_hide_its_message() -> None:
    data = (
        b'{"id":"1","type":"error","payload":[{"message":"no","path":"a.b","locations":[{"line":"x"}],'
        b'"extensions":[]},{"message":"two","path":null,"more":1}]}'
    )
    assert decode_message(data) == Error("1", (GraphQLError(message="no"), GraphQLError(message="two")))


DEEP = b"[" * 100_000


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"hello",
        b"[]",
        b"null",
        b"{}",
        b'{"type":1}',
        b'{"type":"hello"}',
        b'{"type":"' + b"x" * 10_000 + b'"}',
        b'{"type":"ping"',
        b'{"type":"ping"} {}',
        b'\xef\xbb\xbf{"type":"ping"}',
        b'{"type":"ping","payload":[]}',
        b'{"type":"ping","payload":"x"}',
        b'{"type":"ping","payload":NaN}',
        b'{"type":"ping","payload":{"x":NaN}}',
        b'{"type":"ping","payload":{"x":1e999}}',
        b'{"type":"ping","payload":{"x":"\\ud800"}}',
        b'{"type":"ping","x":"\xff"}',
        b'{"type":"\xff"}',
        b'{"type":"ping","x":"\xed\xa0\x80"}',
        b'{"type":"connection_init","payload":1}',
        b'{"type":"connection_ack","payload":[]}',
        b'{"type":"pong","payload":false}',
        b'{"type":"subscribe","payload":{"query":"q"}}',
        b'{"type":"subscribe","id":1,"payload":{"query":"q"}}',
        b'{"type":"subscribe","id":"","payload":{"query":"q"}}',
        b'{"type":"subscribe","id":"1"}',
        b'{"type":"subscribe","id":"1","payload":null}',
        b'{"type":"subscribe","id":"1","payload":{}}',
        b'{"type":"subscribe","id":"1","payload":{"query":1}}',
        b'{"type":"subscribe","id":"1","payload":{"query":"q","variables":[]}}',
        b'{"type":"subscribe","id":"1","payload":{"query":"q","operationName":1}}',
        b'{"type":"subscribe","id":"1","payload":{"query":"q","extensions":1}}',
        b'{"type":"next","id":null,"payload":{}}',
        b'{"type":"complete"}',
        DEEP,
        b'{"type":"ping","payload":' + DEEP,
        b'{"type":"ping","payload":{"x":' + b"[" * 5_000 + b"]" * 5_000 + b"}}",
        b'{"type":"ping","x":' + DEEP,
        b'{"type":' + DEEP,
    ],
)
def test_whatever_is_no_message_is_refused_by_one_error(data: bytes) -> None:
    with pytest.raises(InvalidMessage) as caught:
        decode_message(data)
    assert caught.value.reason
    assert len(caught.value.reason) < 200


@pytest.mark.parametrize(
    ("payload", "errors"),
    [
        (b'[{"message":"denied"}]', ["denied"]),
        (b'{"message":"denied","extensions":{"code":"FORBIDDEN"}}', ["denied"]),
        (b'{"errors":[{"message":"denied"},{"message":"too"}]}', ["denied", "too"]),
        (b'["denied"]', ["denied"]),
        (b'"denied"', ["denied"]),
        (b"[]", []),
        (b'{"errors":[]}', []),
        (b'{"message":1}', ['an error that cannot be read: {"message":1}']),
        (b"{}", ["an error that cannot be read: {}"]),
        (b"null", ["an error that cannot be read: null"]),
        (
            b'[{"message":"denied"},{"message":"\\ud83d"}]',
            ["denied", "?"],
        ),
        (b'{"message":"denied \\ud83d","extensions":{"x":NaN}}', ["denied ?"]),
        (b'{"errors":["\\ud83d"]}', ["?"]),
        (b"[" * 100_000 + b"]" * 100_000, ["an error that cannot be read: it is nested too deep"]),
    ],
)
def test_an_error_in_any_shape_ends_its_operation_with_its_text(payload: bytes, errors: list[str]) -> None:
    message = decode_message(b'{"id":"1","type":"error","payload":%b}' % payload)
    assert isinstance(message, Error)
    assert [error.message for error in message.errors] == errors


def test_an_error_without_a_payload_ends_its_operation() -> None:
    assert decode_message(b'{"id":"1","type":"error"}') == Error("1", ())


UNREADABLE = [
    (b'{"data":"\\ud83d"}', "surrogate"),
    (b'{"data":"\\ude00\\ud83d"}', "surrogate"),
    (b'{"\\ud83d":1}', "surrogate"),
    (b'{"data":NaN}', "NaN"),
    (b'{"data":-Infinity}', "Infinity"),
    (b'{"data":[%b]}' % (b"1" * 5_000), "out of range"),
    (b'{"data":%b1%b}' % (b"[" * 100_000, b"]" * 100_000), "too deep"),
]


@pytest.mark.parametrize(
    "layout", [b'{"id":"1","type":"next","payload":%b}', b'{"type":"next","id":"1","payload":%b} ']
)
@pytest.mark.parametrize(("payload", "why"), UNREADABLE)
def test_a_next_that_no_decoder_reads_is_its_operations(payload: bytes, why: str, layout: bytes) -> None:
    message = decode_message(layout % payload)
    assert isinstance(message, Next)
    assert message.id == "1"
    assert why in (json_defect(message.payload) or "")


@pytest.mark.parametrize("payload", [b"1", b"[]", b"null", b'"x"'])
def test_a_next_whose_payload_is_no_object_is_its_operations(payload: bytes) -> None:
    assert decode_message(b'{"id":"1","type":"next","payload":%b}' % payload) == Next("1", payload)
    assert decode_message(b'{"id":"1","type":"next"}') == Next("1", b"null")


@pytest.mark.parametrize(("value", "why"), UNREADABLE)
def test_variables_that_no_decoder_reads_fail_their_operation(value: bytes, why: str) -> None:
    with pytest.raises(InvalidPayload, match=why) as caught:
        decode_message(b'{"id":"1","type":"subscribe","payload":{"query":"q","variables":%b}}' % value)
    assert caught.value.id == "1"


@pytest.mark.parametrize(
    "payload",
    [
        b"1",
        b'{"query":1}',
        b'{"query":"q","variables":[]}',
        b'{"query":"q","operationName":1}',
        b'{"query":"q","extensions":1}',
    ],
)
def test_a_subscribe_with_a_value_of_another_type_fails_its_operation(payload: bytes) -> None:
    with pytest.raises(InvalidPayload) as caught:
        decode_message(b'{"id":"1","type":"subscribe","payload":%b}' % payload)
    assert caught.value.id == "1"


@pytest.mark.parametrize(
    "data", [b'{"id":"1","type":"subscribe"}', b'{"id":"1","type":"subscribe","payload":{}}']
)
def test_a_subscribe_without_a_query_is_no_message(data: bytes) -> None:
    with pytest.raises(InvalidMessage) as caught:
        decode_message(data)
    assert not isinstance(caught.value, InvalidPayload)


def test_an_id_with_half_a_surrogate_pair_is_named_in_the_error_as_it_came() -> None:
    with pytest.raises(InvalidPayload, match="surrogate") as caught:
        decode_message(b'{"id":"\\ud83d","type":"subscribe","payload":{"query":"q"}}')
    assert caught.value.id == "\ud83d"
    error = Error(caught.value.id, (GraphQLError(message="no"),))
    assert encode_message(error) == b'{"id":"\\ud83d","type":"error","payload":[{"message":"no"}]}'


def test_a_stray_payload_of_a_complete_does_no_harm() -> None:
    assert decode_message(b'{"id":"1","type":"complete","payload":NaN}') == Complete("1")


@given(st.binary(max_size=60) | st.text(max_size=60).map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_random_bytes_are_a_message_or_refused(data: bytes) -> None:
    try:
        message = decode_message(data)
    except InvalidMessage:
        return
    assert message is None or decode_message(encode_message(message)) == message


@pytest.mark.parametrize("value", [object(), "\ud800", {(1, 2): 3}])
def test_a_value_without_a_json_form_is_the_callers_mistake(value: object) -> None:
    with pytest.raises(UsageError, match="Subscribe cannot be written as JSON"):
        encode_message(Subscribe("1", "q", {"value": value}))


def test_a_value_nested_without_end_is_the_callers_mistake() -> None:
    endless: dict[str, object] = {}
    endless["self"] = endless
    with pytest.raises(UsageError, match="ConnectionInit cannot be written as JSON"):
        encode_message(ConnectionInit(endless))
