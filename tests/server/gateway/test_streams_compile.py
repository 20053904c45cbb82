"""Every stream of the schema is projected by compiled code; a counter tells what is not."""

from __future__ import annotations

import graphql
import pytest
from graphql import (
    GraphQLField,
    GraphQLObjectType,
    GraphQLOutputType,
    GraphQLUnionType,
    get_named_type,
    is_leaf_type,
)

from circuit_breaker_server.gateway.subscription_plan import make_plan
from circuit_breaker_server.graphql.documents import Documents
from circuit_breaker_server.graphql.schema import load_schema

SCHEMA = load_schema()
assert SCHEMA.subscription_type is not None
FIELDS = SCHEMA.subscription_type.fields


def everything(output: GraphQLOutputType, depth: int = 6) -> str:
    """Select all that there is, as deep as the schema goes."""
    named = get_named_type(output)
    if is_leaf_type(named):
        return ""
    if isinstance(named, GraphQLUnionType):
        members = (f"... on {member.name} {everything(member, depth)}" for member in named.types)
        return f"{{ __typename {' '.join(members)} }}"
    assert isinstance(named, GraphQLObjectType)
    parts = [
        f"{name} {everything(field.type, depth - 1)}"
        for name, field in named.fields.items()
        if depth or is_leaf_type(get_named_type(field.type))
    ]
    return "{{ __typename {} }}".format(" ".join(parts))


def arguments(field: GraphQLField) -> str:
    given = [
        f'{name}: "x"' for name, argument in field.args.items() if graphql.is_non_null_type(argument.type)
    ]
    return f"({', '.join(given)})" if given else ""


@pytest.mark.parametrize("name", sorted(FIELDS))
def test_the_whole_of_a_stream_compiles(name: str) -> None:
    field = FIELDS[name]
    text = f"subscription {{ renamed: {name}{arguments(field)} {everything(field.type)} }}"
    plan = make_plan(SCHEMA, Documents(SCHEMA).get(text))
    assert plan.projection().compiled, text
