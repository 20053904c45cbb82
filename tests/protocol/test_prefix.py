"""The prefix route is only ever a short cut: it says what the full codec says, or nothing."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from circuit_breaker_sdk.protocol.codec import InvalidMessage, decode_message, encode_message
from circuit_breaker_sdk.protocol.messages import Next
from circuit_breaker_sdk.protocol.next_prefix import PrefixRoutes
from tests.protocol.strategies import escaped_strings, json_objects, layouts, plain_ids, texts

PAYLOAD = b'{"data":{"x":1}}'


class Route:
    """Stands for an operation; compared by identity, as the real ones are."""


def fast(routes: PrefixRoutes[Route], data: bytes) -> tuple[Route, bytes] | None:
    """Do what the client's hot path does with a message."""
    route = routes.by_prefix.get(data[: routes.prefix_length])
    if route is None or not data.endswith(b"}"):
        return None
    payload = data[routes.prefix_length : -1]
    try:
        msgspec.json.decode(payload, type=dict[str, object])
    except (msgspec.DecodeError, RecursionError):
        return None
    return route, payload


def learned(data: bytes, *ids: str) -> tuple[PrefixRoutes[Route], dict[str, Route]]:
    routes = PrefixRoutes[Route]()
    by_id = {id_: Route() for id_ in ids}
    for id_, route in by_id.items():
        routes.add(id_, route)
    message = decode_message(data)
    assert isinstance(message, Next)
    routes.learn(data, message)
    return routes, by_id


def test_nothing_is_routed_before_a_message_was_learned() -> None:
    routes = PrefixRoutes[Route]()
    routes.add("1", Route())
    assert routes.prefix_length == 0
    assert fast(routes, encode_message(Next("1", PAYLOAD))) is None


@pytest.mark.parametrize(
    "data",
    [
        b'{"id":"1","type":"next","payload":%b}',
        b'{"type":"next","id":"1","payload":%b}',
        b'{"type": "next", "id": "1", "payload": %b}',
        b'{"id": "1", "type": "next", "payload": %b}',
        b'\n{ "id" :"1"\t,\r"type" :"next" ,"payload" :%b}',
    ],
)
def test_one_message_teaches_the_prefix_of_every_operation(data: bytes) -> None:
    routes, by_id = learned(data % PAYLOAD, "1", "2")
    routes.add("3", later := Route())
    other = b'{"data":{"x":2}}'
    assert fast(routes, data % other) == (by_id["1"], other)
    assert fast(routes, data.replace(b'"1"', b'"2"') % other) == (by_id["2"], other)
    assert fast(routes, data.replace(b'"1"', b'"3"') % other) == (later, other)
    assert fast(routes, data.replace(b'"1"', b'"4"') % other) is None


@pytest.mark.parametrize(
    "data",
    [
        b'{"id":"1","payload":{},"type":"next"}',
        b'{"payload":{},"type":"next","id":"1"}',
        b'{"id":"1","type":"next","payload":{},"more":1}',
        b'{"id":"1","type":"next","payload":{} }',
        b'{"id":"1","type":"next","payload":{}}\n',
        b'{"id":"1","type":"next","more":1,"payload":{}}',
        b'{"id":"1","type":"next","payload":{"a":1},"payload":{"a":1}}',
        b'{"id":"2","type":"next","id":"1","payload":{}}',
        b'{"id":"\\u0031","type":"next","payload":{}}',
        b'{"id":"1","type":"n\\u0065xt","payload":{}}',
    ],
)
def test_an_unusual_layout_is_not_learned(data: bytes) -> None:
    routes, _ = learned(data, "1", "2")
    assert routes.prefix_length == 0
    assert not routes.by_prefix


def test_ids_of_another_length_or_with_special_characters_stay_on_the_full_codec() -> None:
    routes, by_id = learned(encode_message(Next("aaaa", PAYLOAD)), "aaaa", "bbbb", "c", "a/bc", "dé1")
    assert sorted(routes.by_prefix.values(), key=id) == sorted((by_id["aaaa"], by_id["bbbb"]), key=id)
    assert routes.get("a/bc") is by_id["a/bc"]
    assert routes.remove("dé1", by_id["dé1"])


def test_a_layout_in_use_is_not_learned_anew() -> None:
    routes, by_id = learned(encode_message(Next("1", PAYLOAD)), "1", "22")
    routes.learn(encode_message(Next("22", PAYLOAD)), Next("22", PAYLOAD))
    assert list(routes.by_prefix.values()) == [by_id["1"]]


def test_once_the_last_id_of_its_length_is_gone_another_length_is_learned() -> None:
    routes, by_id = learned(encode_message(Next("1", PAYLOAD)), "1", "22")
    assert routes.remove("1", by_id["1"])
    routes.learn(encode_message(Next("22", PAYLOAD)), Next("22", PAYLOAD))
    assert fast(routes, encode_message(Next("22", PAYLOAD))) == (by_id["22"], PAYLOAD)


def test_a_removed_route_gets_nothing_more() -> None:
    routes, by_id = learned(encode_message(Next("1", PAYLOAD)), "1", "2")
    assert routes.remove("1", by_id["1"])
    assert not routes.remove("1", by_id["1"])
    assert routes.get("1") is None
    assert fast(routes, encode_message(Next("1", PAYLOAD))) is None
    assert fast(routes, encode_message(Next("2", PAYLOAD))) == (by_id["2"], PAYLOAD)


def test_removing_a_route_never_removes_its_successor() -> None:
    routes, by_id = learned(encode_message(Next("1", PAYLOAD)), "1")
    routes.add("1", successor := Route())
    assert not routes.remove("1", by_id["1"])
    assert fast(routes, encode_message(Next("1", PAYLOAD))) == (successor, PAYLOAD)


def test_a_route_is_removed_before_anything_was_learned() -> None:
    routes = PrefixRoutes[Route]()
    routes.add("1", route := Route())
    assert routes.remove("1", route)
    assert len(routes) == 0


def test_all_routes_are_listed_in_order() -> None:
    routes, by_id = learned(encode_message(Next("1", PAYLOAD)), "2", "1", "33")
    assert routes.routes() == tuple(by_id.values())
    assert len(routes) == 3


@pytest.mark.parametrize(
    "data",
    [
        b'{"id":"1","type":"next","payload":{"data":1},"id":"2"}',
        b'{"id":"1","type":"next","payload":{"data":1},"payload":{"data":2}}',
        b'{"id":"1","type":"next","payload":{"data":1}',
        b'{"id":"1","type":"next","payload":{"data":1}}}',
        b'{"id":"1","type":"next","payload":null}',
        b'{"id":"1","type":"next","payload":}',
        b'{"id":"1","type":"next","payload":{}}\n',
    ],
)
def test_a_known_prefix_with_a_strange_remainder_is_left_to_the_codec(data: bytes) -> None:
    routes, _ = learned(encode_message(Next("1", PAYLOAD)), "1")
    assert data[: routes.prefix_length] in routes.by_prefix
    assert fast(routes, data) is None


known_ids = st.sampled_from(["1", "2", "a", "12", "é", '"', "a/b", "\x7f"]) | plain_ids | texts.filter(bool)


@st.composite
def nexts(draw: st.DrawFn, ids: st.SearchStrategy[str]) -> bytes:
    """Draw a `next`: as everybody writes it, with its fields shuffled and one of them twice, or anyhow."""
    fields = [
        ("id", written_id := msgspec.json.encode(draw(ids)).decode()),
        ("type", '"next"'),
        ("payload", msgspec.json.encode(draw(json_objects)).decode()),
    ]
    way = draw(st.sampled_from(["plain", "twice", "anyhow"]))
    if way == "anyhow":
        fields[0] = ("id", draw(st.just(written_id) | escaped_strings(draw(ids))))
        return draw(layouts(fields))
    if way == "twice":
        another = [("id", msgspec.json.encode(draw(ids)).decode()), ("type", '"next"'), ("payload", "{}")]
        fields = draw(st.permutations([*fields, draw(st.sampled_from(another))]))
    return ("{" + ",".join(f'"{key}":{value}' for key, value in fields) + "}").encode()


@settings(max_examples=250)
@given(known=st.lists(known_ids, min_size=1, max_size=4, unique=True), data=st.data())
def test_the_prefix_route_and_the_full_codec_never_disagree(known: list[str], data: st.DataObject) -> None:
    routes = PrefixRoutes[Route]()
    by_id = {id_: Route() for id_ in known}
    for id_, route in by_id.items():
        routes.add(id_, route)
    drawn = data.draw(st.lists(nexts(st.sampled_from(known) | known_ids), min_size=1, max_size=4))
    # Each one twice: what the first teaches must hold for the second.
    for written in [message for message in drawn for _ in range(2)]:
        short = fast(routes, written)
        try:
            full = decode_message(written)
        except InvalidMessage:
            full = None
        if short is not None:
            assert isinstance(full, Next)
            assert short[0] is by_id[full.id]
            assert short[1].strip(b" \t\r\n") == full.payload
        elif isinstance(full, Next):
            routes.learn(written, full)
