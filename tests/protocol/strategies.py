"""What the property tests draw from: JSON values, ids, messages and the many ways to write them."""

from __future__ import annotations

import json
from collections.abc import Sequence

from hypothesis import strategies as st

from circuit_breaker_sdk.errors import GraphQLError
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

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts
)
json_values: st.SearchStrategy[object] = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)
json_objects: st.SearchStrategy[dict[str, object]] = st.dictionaries(texts, json_values, max_size=3)
optional_objects = st.none() | json_objects

plain_ids = st.text("abcXYZ019_-.", min_size=1, max_size=4)
ids = plain_ids | texts.filter(bool)
whitespace = st.text(" \t\r\n", max_size=2)

graphql_errors = st.builds(
    GraphQLError,
    message=texts,
    path=st.none() | st.lists(texts | st.integers(0, 9), max_size=3).map(tuple),
    locations=st.none() | st.just(({"line": 1, "column": 2},)),
    extensions=optional_objects,
)

messages: st.SearchStrategy[Message] = st.one_of(
    st.builds(ConnectionInit, optional_objects),
    st.builds(ConnectionAck, optional_objects),
    st.builds(Ping, optional_objects),
    st.builds(Pong, optional_objects),
    st.builds(Subscribe, ids, texts, optional_objects, st.none() | texts, optional_objects),
    st.builds(Next, ids, json_objects.map(lambda value: json.dumps(value).encode())),
    st.builds(Error, ids, st.lists(graphql_errors, max_size=2).map(tuple)),
    st.builds(Complete, ids),
)


@st.composite
def escaped_strings(draw: st.DrawFn, text: str) -> str:
    """Write a JSON string with some of its characters as ``\\u`` escapes."""
    written = []
    for character in text:
        if ord(character) < 0x10000 and draw(st.integers(0, 9)) == 0:
            written.append(f"\\u{ord(character):04x}")
        else:
            written.append(json.dumps(character, ensure_ascii=draw(st.booleans()))[1:-1])
    return '"' + "".join(written) + '"'


@st.composite
def layouts(draw: st.DrawFn, fields: Sequence[tuple[str, str]]) -> bytes:
    """Write an object from encoded fields: any order, whitespace, hostile extra and duplicate keys."""
    extra_keys = st.sampled_from(["id", "type", "payload", "x", "i\\u0064", "typ\\u0065"])
    extra_values = st.sampled_from(
        ['"1"', '"2"', '"a"', '"next"', "{}", '{"data":1}', "null", "[1,2]", "{", '"']
        + [value for _, value in fields]
    )
    extras = draw(st.lists(st.tuples(extra_keys, extra_values), max_size=2) | st.just([]))
    ordered = list(draw(st.permutations(fields) | st.just(list(fields))))
    for key, value in extras:
        ordered.insert(draw(st.integers(0, len(ordered)) | st.just(len(ordered))), (key, value))
    gap = whitespace | st.just("")
    members = [f'{draw(gap)}"{key}"{draw(gap)}:{draw(gap)}{value}{draw(gap)}' for key, value in ordered]
    text = draw(gap) + "{" + ",".join(members) + "}" + draw(gap)
    # One code point may be lost or doubled on the way, anywhere.
    if draw(st.integers(0, 9)) == 0:
        at = draw(st.integers(0, len(text) - 1))
        text = text[:at] + draw(st.sampled_from(["", text[at] * 2])) + text[at + 1 :]
    return text.encode()
