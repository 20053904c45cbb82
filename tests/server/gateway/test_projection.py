"""The compiled projection says what graphql-core says, whatever the document and the value."""

from __future__ import annotations

from typing import cast

import graphql
import msgspec
import pytest
from graphql import ExecutionResult, Executor, build_schema, parse, validate
from graphql.execution.execute import execute_subscription_event
from graphql.validation import NoUnusedFragmentsRule, NoUnusedVariablesRule, specified_rules
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from circuit_breaker_server.gateway.projection import Projection
from circuit_breaker_server.graphql.errors import to_wire
from circuit_breaker_server.graphql.selection_compiler import root_fields
from tests.server.gateway.documents import SCHEMA, documents, values

RULES = [rule for rule in specified_rules if rule not in (NoUnusedFragmentsRule, NoUnusedVariablesRule)]


def build(
    text: str, schema: graphql.GraphQLSchema = SCHEMA, variables: dict[str, object] | None = None
) -> Executor[None]:
    executor = Executor.build(schema, parse(text), raw_variable_values=variables or {})
    assert isinstance(executor, Executor)
    return executor


def by_graphql_core(executor: Executor[None], name: str, value: object) -> dict[str, object]:
    result = cast(
        "ExecutionResult", execute_subscription_event(executor.build_per_event_executor({name: value}))
    )
    answer: dict[str, object] = {"data": result.data}
    if result.errors:
        answer["errors"] = [
            {k: v for k, v in msgspec.structs.asdict(to_wire(error)).items() if v is not None}
            for error in result.errors
        ]
    return answer


def check_same(document: str, data: st.DataObject, *, unfit: bool) -> Projection:
    assume(not validate(SCHEMA, parse(document), RULES))
    executor = build(document, variables={"yes": True})
    roots = root_fields(executor)
    ((_key, details),) = roots.items()
    name = details[0].node.name.value
    assert SCHEMA.subscription_type is not None
    value = data.draw(values(SCHEMA.subscription_type.fields[name].type, unfit=unfit))
    assume(value is not None)
    projection = Projection(executor)
    assert projection.compiled
    encoded = projection.encode(value) + b"}"  # type: ignore[arg-type]  # an enum or a list at the root, here
    assert encoded == msgspec.json.encode(by_graphql_core(executor, name, value))
    return projection


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(document=documents(), data=st.data())
def test_fitting_values_are_encoded_as_graphql_core_would_and_without_it(
    document: str, data: st.DataObject
) -> None:
    assert check_same(document, data, unfit=False).fallbacks == 0


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(document=documents(), data=st.data())
def test_unfit_values_give_the_data_and_errors_that_graphql_core_gives(
    document: str, data: st.DataObject
) -> None:
    check_same(document, data, unfit=True)


def test_the_fields_of_one_name_are_merged() -> None:
    executor = build(
        "subscription { wholes { part { id } ...F part { name } } } fragment F on Whole { flag }"
    )
    value = {"part": {"id": "p", "name": "n"}, "flag": True}
    assert Projection(executor).encode(value) == (
        b'{"data":{"wholes":{"part":{"id":"p","name":"n"},"flag":true}}'
    )


def test_a_null_where_none_may_be_is_an_error_with_its_path_and_counts_as_fallback() -> None:
    projection = Projection(build("subscription { maybe { id flag } }"))
    answer = msgspec.json.decode(projection.encode({"id": "w", "flag": None}) + b"}")
    assert answer["data"] == {"maybe": None}
    assert answer["errors"][0]["path"] == ["maybe", "flag"]
    assert answer["errors"][0]["extensions"] == {"code": "INTERNAL"}
    assert projection.fallbacks == 1


def test_leaves_keep_their_order_their_names_and_what_may_be_missing() -> None:
    schema = build_schema(
        """
        scalar JSON
        type Thing { name: String extra: JSON! encode: ID! }
        type Query { nothing: String }
        type Subscription { things: Thing }
        """
    )
    projection = Projection(build("subscription { things { extra encode name } }", schema))
    raw = msgspec.Raw(b'{"b":1, "a":2}')
    assert projection.encode({"encode": "e", "extra": raw}) == (
        b'{"data":{"things":{"extra":{"b":1, "a":2},"encode":"e","name":null}}'
    )
    assert projection.fallbacks == 0
    for unfit in ({"encode": "e", "extra": None}, {"encode": "e"}, {"encode": 1.5, "extra": raw}):
        assert b"errors" in projection.encode(unfit)
    assert projection.fallbacks == 3


def test_raw_json_inside_a_value_goes_through_untouched() -> None:
    projection = Projection(build("subscription { wholes { extra } }"))
    encoded = projection.encode({"extra": msgspec.Raw(b'{"b":1, "a":2}')})
    assert encoded == b'{"data":{"wholes":{"extra":{"b":1, "a":2}}}'


@pytest.mark.parametrize("special", ["argument", "resolver", "is_type_of", "resolve_type"])
def test_what_cannot_be_compiled_is_left_to_graphql_core(special: str) -> None:
    schema = build_schema(
        """
        interface Named { name: String }
        type Thing implements Named { name(upper: Boolean = false): String plain: String named: Named }
        type Query { nothing: String }
        type Subscription { things: Thing! }
        """
    )
    thing = schema.type_map["Thing"]
    assert isinstance(thing, graphql.GraphQLObjectType)
    named = schema.type_map["Named"]
    assert isinstance(named, graphql.GraphQLInterfaceType)
    selection = "plain"
    if special == "argument":
        selection = "name(upper: true)"
    elif special == "resolver":
        thing.fields["plain"].resolve = lambda source, _info: source["plain"].upper()
    elif special == "is_type_of":
        thing.is_type_of = lambda _value, _info: True
    else:
        named.resolve_type = lambda _value, _info, _type: "Thing"
        selection = "named { __typename }"
    executor = build(f"subscription {{ things {{ {selection} }} }}", schema)
    projection = Projection(executor)
    value = {"name": "n", "plain": "p", "named": {"name": "x"}}
    assert not projection.compiled
    encoded = projection.encode(value) + b"}"
    assert encoded == msgspec.json.encode(by_graphql_core(executor, "things", value))
    assert projection.fallbacks == 1


def test_an_operation_without_its_one_root_field_is_refused() -> None:
    executor = build("subscription { wholes @skip(if: true) { id } }")
    with pytest.raises(ValueError, match="exactly one"):
        Projection(executor)
