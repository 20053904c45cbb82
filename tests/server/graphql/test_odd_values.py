"""Whatever stands where a value is expected, the caller is told so: it is never the server's error."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import pytest
from graphql import GraphQLInputObjectType, GraphQLObjectType, get_named_type

from circuit_breaker_server import Server, ServerSettings
from circuit_breaker_server.graphql.documents import Documents
from circuit_breaker_server.graphql.errors import DocumentInvalid
from circuit_breaker_server.graphql.schema import load_schema

SCHEMA = load_schema()
DIGITS = "9" * 5_000
ODD = (
    DIGITS,
    f"-{DIGITS}",
    f"{DIGITS}.5",
    "1e999999999",
    f"1e{DIGITS}",
    f"0.{DIGITS}",
    "0",
    "-1",
    f"[{DIGITS}]",
    f"{{a: {DIGITS}}}",
    "NaN",
    "null",
    '""',
    '"\\u0000"',
    f'"{DIGITS}"',
    '"9999-99-99T99:99:99Z"',
    '"0001-01-01T00:00:00+23:59"',
    '"http://[::1"',
    '"http://127.0.0.1:99999/"',
    '"http://a..b:x/"',
    '"("',
)


def places(type_: object, seen: Counter[str], depth: int = 4) -> Iterator[str]:
    """Yield texts of a value of the type with one place, ``%s``, in each; a few of each type of place."""
    named = get_named_type(type_)  # type: ignore[call-overload]
    seen[str(type_)] += 1
    if seen[str(type_)] <= 2:
        yield "%s"
    if isinstance(named, GraphQLInputObjectType) and depth:
        for name, field in named.fields.items():
            for inner in places(field.type, seen, depth - 1):
                yield f"{{{name}: {inner}}}"


def documents() -> Iterator[str]:
    """Yield a document with a place for each argument and field of an input of the schema."""
    roots = ("query", SCHEMA.query_type), ("mutation", SCHEMA.mutation_type)
    seen: Counter[str] = Counter()
    for kind, root in (*roots, ("subscription", SCHEMA.subscription_type)):
        assert isinstance(root, GraphQLObjectType)
        for name, field in root.fields.items():
            below = " { __typename }" if hasattr(get_named_type(field.type), "fields") else ""
            for argument, given in field.args.items():
                for place in places(given.type, seen):
                    yield f"{kind} {{ {name}({argument}: {place}){below} }}"
                if seen[str(given.type)] <= 2:
                    yield f"{kind}($a: {given.type} = %s) {{ {name}({argument}: $a){below} }}"
    yield "query($a: Int = %s) { health }"
    yield "{ health @include(if: %s) }"
    yield "{ health @skip(if: [%s]) }"
    yield '{ __type(name: "X", b: %s) { name } }'
    yield "%s"
    yield "{ %s }"


def test_a_literal_that_cannot_be_read_is_an_input_error_wherever_it_stands(
    capsys: pytest.CaptureFixture[str],
) -> None:
    kept = Documents(SCHEMA)
    count = 0
    for document, value in itertools.product(documents(), ODD):
        try:
            kept.get(document % value)
        except DocumentInvalid as invalid:
            for error in invalid.errors:
                assert error.extensions is not None, document
                assert error.extensions["code"] != "INTERNAL", (document, value[:40])
        count += 1
    assert count > 1_000
    assert "Traceback" not in capsys.readouterr().err


QUERIES = (
    ("query($a: String!) { workflow(id: $a) { id } }", "a"),
    ("query($a: PaginationInput) { mcpServers(pagination: $a) { edges { node { id } } } }", "a"),
    ("query($a: CostAnalyticsInput!) { costAnalytics(input: $a) { totalCost } }", "a"),
    ('mutation($a: Float!) { applyCredit(userId: "eve", amount: $a) { limit } }', "a"),
    ("mutation($a: BudgetInput!) { setBudget(input: $a) { limit } }", "a"),
    ("query($a: Boolean!) { health @include(if: $a) }", "a"),
)
JSON_VALUES = (
    DIGITS, f"-{DIGITS}",
    "18446744073709551616", "9223372036854775808", "1e400", "-1e400", "0.0", "-0", "null",
    "true", "[]", "{}", '"\\u0000"', '"\\ud800"', f'"{DIGITS}"', '{"first": 2147483648}', '{"first": 1e10}',
    '{"first": -1}', '{"after": "not a cursor"}', '{"after": "YXQ6OTk5OTk5OTk5OTk5OTk5OTk5OTk5"}',
    '{"startDate": "9999-99-99", "endDate": "2024-01-01"}', '{"startDate": "", "endDate": "\\u0661"}',
    '{"startDate": "0001-01-01T00:00:00+23:59", "endDate": "9999-12-31T23:59:59-23:59"}',
)  # fmt: skip


async def test_a_variable_that_cannot_be_read_is_an_input_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with Server(ServerSettings(data_dir=tmp_path, port=0)) as server, aiohttp.ClientSession() as http:
        for (query, name), value in itertools.product(QUERIES, JSON_VALUES):
            body = f'{{"query": {json.dumps(query)}, "variables": {{"{name}": {value}}}}}'
            headers = {"Content-Type": "application/json"}
            for path in ("", "/poll"):
                async with http.post(server.url + path, data=body, headers=headers) as answer:
                    text = await answer.text()
                    assert answer.status < 500, (query, value[:40], text)
                    assert "INTERNAL" not in text, (query, value[:40], text)
    assert "Traceback" not in capsys.readouterr().err
