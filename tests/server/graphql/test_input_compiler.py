"""Input that is compiled is coerced as graphql-core coerces it, and what that refuses is left to it."""

from __future__ import annotations

import functools
from collections.abc import Callable

import pytest
from graphql import (
    FieldNode,
    GraphQLEnumType,
    GraphQLField,
    GraphQLInputObjectType,
    GraphQLList,
    GraphQLNonNull,
    GraphQLObjectType,
    GraphQLSchema,
    OperationDefinitionNode,
    build_schema,
    get_argument_values,
    get_variable_values,
    parse,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from circuit_breaker_server.graphql.compiled_operation import compile_operation
from circuit_breaker_server.graphql.documents import Document
from circuit_breaker_server.graphql.input_compiler import CoerceInput, UnfitInput, compile_input
from circuit_breaker_server.graphql.schema import load_schema

REFUSED = "refused"

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.text(st.characters(codec=None), max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=4,
)


def roots() -> list[tuple[str, str, GraphQLField]]:
    schema = load_schema()
    kinds = (("query", schema.query_type), ("mutation", schema.mutation_type))
    return [
        (kind, name, field)
        for kind, root in kinds
        if isinstance(root, GraphQLObjectType)
        for name, field in root.fields.items()
        if field.args
    ]


ROOTS = roots()


@functools.cache
def values(type_: object) -> st.SearchStrategy[object]:
    """Make values of an input type: most of them fit, and here and there something else is in them."""
    if isinstance(type_, GraphQLNonNull):
        return values_that_fit(type_.of_type) | st.sampled_from([None, 0]) | json_values
    fitting = values_that_fit(type_)
    return fitting | fitting | st.none() | json_values


@functools.cache
def values_that_fit(type_: object) -> st.SearchStrategy[object]:
    if isinstance(type_, GraphQLNonNull):
        return values_that_fit(type_.of_type)
    if isinstance(type_, GraphQLList):
        item = st.deferred(lambda: values(type_.of_type))
        return st.lists(item, max_size=2) | item
    if isinstance(type_, GraphQLEnumType):
        return st.sampled_from([*type_.values, "NO_SUCH_VALUE"])
    if isinstance(type_, GraphQLInputObjectType):
        fields = {name: later(values, field.type) for name, field in type_.fields.items()}
        required = {n: later(values_that_fit, f.type) for n, f in type_.fields.items() if is_required(f)}
        optional = {n: strategy for n, strategy in fields.items() if n not in required}
        members = st.fixed_dictionaries(required, optional=optional)
        damaged = st.fixed_dictionaries({}, optional={**fields, "unknown": json_values})
        return members | members | members | damaged
    return {
        "String": st.text(max_size=4),
        "ID": st.text(max_size=4) | st.integers() | st.floats(),
        "Int": st.integers(-(2**31) - 1, 2**31) | st.just(2.0),
        "Float": st.floats() | st.integers(),
        "Boolean": st.booleans(),
    }.get(str(type_), json_values)


def later(make: Callable[[object], st.SearchStrategy[object]], type_: object) -> st.SearchStrategy[object]:
    """Make a strategy when it is drawn from: a type may hold itself."""
    return st.deferred(lambda: make(type_))


def is_required(field: object) -> bool:
    type_, default = getattr(field, "type", None), getattr(field, "default", None)
    return isinstance(type_, GraphQLNonNull) and default is None


def operation_of(text: str) -> tuple[OperationDefinitionNode, FieldNode]:
    (definition,) = parse(text).definitions
    assert isinstance(definition, OperationDefinitionNode)
    (node,) = definition.selection_set.selections
    assert isinstance(node, FieldNode)
    return definition, node


def by_graphql_core(
    schema: GraphQLSchema, field: GraphQLField, text: str, variables: dict[str, object]
) -> object:
    definition, node = operation_of(text)
    coerced = get_variable_values(schema, definition.variable_definitions or (), variables)
    if isinstance(coerced, list):
        return REFUSED
    try:
        return get_argument_values(field, node, coerced)
    except Exception:  # noqa: BLE001 (it is refused, however)
        return REFUSED


def compiled(schema: GraphQLSchema, field: GraphQLField, text: str) -> CoerceInput:
    definition, node = operation_of(text)
    return compile_input(schema, definition.variable_definitions or (), field, node)


def by_compiled(coerce: CoerceInput, variables: dict[str, object]) -> object:
    try:
        return coerce(variables)
    except Exception:  # noqa: BLE001 (it is for graphql-core, however)
        return REFUSED


def asking(kind: str, name: str, field: GraphQLField) -> str:
    variables = ", ".join(f"${each}: {argument.type}" for each, argument in field.args.items())
    arguments = ", ".join(f"{each}: ${each}" for each in field.args)
    return f"{kind}({variables}) {{ {name}({arguments}) {{ id }} }}"


def is_compiled(root: tuple[str, str, GraphQLField]) -> bool:
    try:
        compiled(load_schema(), root[2], asking(*root))
    except UnfitInput:
        return False
    return True


def test_the_input_of_every_field_is_compiled_but_of_types_that_hold_themselves() -> None:
    # A rule's conditions hold conditions.
    assert {root[1] for root in ROOTS if not is_compiled(root)} == {"createRule", "updateRule"}


def test_what_is_compiled_coerces_values_as_graphql_core_does() -> None:
    schema, compiled_roots = load_schema(), list(filter(is_compiled, ROOTS))
    met = {True: 0, False: 0}

    @settings(max_examples=1500, deadline=None, suppress_health_check=list(HealthCheck))
    @given(root=st.sampled_from(compiled_roots), data=st.data())
    def check(root: tuple[str, str, GraphQLField], data: st.DataObject) -> None:
        field, text = root[2], asking(*root)
        strategies = {name: values(argument.type) for name, argument in field.args.items()}
        variables = data.draw(st.fixed_dictionaries({}, optional={**strategies, "other": json_values}))
        expected = by_graphql_core(schema, field, text, variables)
        given_back = by_compiled(compiled(schema, field, text), variables)
        met[expected == REFUSED] += 1
        assert repr(given_back) == repr(expected)  # NaN included, and 1 is not 1.0

    check()
    assert met[True] > 50
    assert met[False] > 50


TOY = build_schema("""
    input Deep { deep: Deep  name: String }
    input Either @oneOf { a: Int  b: Int }
    input Plain { a: Int! = 3  b: [Int!]  c: [[String]] }
    type Query {
      deep(value: Deep): String
      either(value: Either): String
      plain(value: Plain, count: Int = 5, must: Int! = 6): String
    }
""")


@pytest.mark.parametrize(
    ("variables", "arguments"),
    [
        ("$v: Plain", "value: $v"),
        ("$v: Plain, $n: Int", "value: $v, count: $n"),
        ("$v: Plain, $n: Int = 7", "value: $v, count: $n, must: $n"),
        ("$n: Int! = 7", "count: $n, must: $n"),
        ("$n: Int!", "must: $n, count: $n"),
    ],
)
@pytest.mark.parametrize(
    "given_values",
    [
        {},
        {"v": None, "n": None},
        {"v": {}, "n": 8},
        {"v": {"a": None}},
        {"v": {"a": 1, "b": 2, "c": "x"}},
        {"v": {"b": [None]}},
        {"v": {"b": [1, 2], "c": [["x"], "y", None]}},
        {"v": {"d": 1}},
        {"v": [], "n": "8"},
        {"n": 2**31},
        {"n": True},
        {"v": {"b": (1, 2)}},
    ],
)
def test_defaults_and_nulls_are_those_of_graphql_core(
    variables: str, arguments: str, given_values: dict[str, object]
) -> None:
    field = query_field("plain")
    text = f"query({variables}) {{ plain({arguments}) }}"
    coerced = by_compiled(compiled(TOY, field, text), given_values)
    if given_values == {"v": {"b": (1, 2)}} and "$v" in variables:
        assert coerced == REFUSED  # JSON has no tuples: graphql-core may have them
    else:
        assert coerced == by_graphql_core(TOY, field, text, given_values)


def query_field(name: str) -> GraphQLField:
    assert TOY.query_type is not None
    field: GraphQLField = TOY.query_type.fields[name]
    return field


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("deep", "query($v: Deep) { deep(value: $v) }"),
        ("either", "query($v: Either) { either(value: $v) }"),
        ("plain", "{ plain(count: 4) }"),
        ("plain", "query($n: Int) { plain(value: {b: [$n]}) }"),
        ("plain", "query($v: Plain = {a: 4}) { plain(value: $v) }"),
    ],
)
def test_types_and_arguments_of_other_kinds_are_not_compiled(name: str, text: str) -> None:
    with pytest.raises(UnfitInput):
        compiled(TOY, query_field(name), text)


def test_an_operation_uses_graphql_core_for_input_that_does_not_fit_exactly() -> None:
    text = "query($id: String!) { workflow(id: $id) { id } }"
    document = Document(text, parse(text))
    operation = compile_operation(load_schema(), document, None, frozenset())
    assert operation is not None
    assert operation.arguments({"id": "w1"}) == {"id": "w1"}
    assert operation.arguments({"id": 1}) is None
    assert operation.arguments({}) is None
