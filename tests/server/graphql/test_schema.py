"""The schema is the contract, and everything in it is described or plain."""

from __future__ import annotations

import pytest
from graphql import (
    GraphQLEnumType,
    GraphQLInputObjectType,
    GraphQLInterfaceType,
    GraphQLObjectType,
    GraphQLUnionType,
    Node,
    is_introspection_type,
    is_specified_scalar_type,
    print_ast,
    validate_schema,
)

from circuit_breaker_server.engine.engine import STREAMS
from circuit_breaker_server.engine.workflows.definitions import StateType
from circuit_breaker_server.graphql.root_fields import LISTS, MUTATIONS, QUERIES
from circuit_breaker_server.graphql.schema import load_schema
from scripts import contract

SCALARS = {"JSON", "DateTime"}
DECLARED = [n for n, t in load_schema().type_map.items() if not is_introspection_type(t)]
FIELDS = [n for n in DECLARED if n in contract.TYPES]
ROOTS = {"Query": contract.QUERIES, "Mutation": contract.MUTATIONS, "Subscription": contract.SUBSCRIPTIONS}


def test_the_schema_is_valid_and_built_once() -> None:
    assert validate_schema(load_schema()) == []
    assert load_schema() is load_schema()


def wanted(text: str) -> set[str]:
    return {" ".join(each.split()) for each in text.split(";")}


def signatures(type_: object) -> set[str]:
    assert isinstance(type_, (GraphQLObjectType, GraphQLInputObjectType, GraphQLInterfaceType))
    found = set()
    for name, field in type_.fields.items():
        arguments = getattr(field, "args", {})
        inside = ", ".join(f"{key}: {argument.type}" for key, argument in arguments.items())
        default = getattr(field.ast_node, "default_value", None)
        ending = f" = {print_ast(default)}" if isinstance(default, Node) else ""
        found.add(f"{name}{f'({inside})' if inside else ''}: {field.type}{ending}")
    return found


@pytest.mark.parametrize("name", FIELDS)
def test_each_type_has_the_fields_of_the_contract_and_those_we_add(name: str) -> None:
    assert signatures(load_schema().type_map[name]) == wanted(contract.TYPES[name])


@pytest.mark.parametrize("name", [n for n in DECLARED if n in contract.ENUMS])
def test_each_enum_has_the_values_of_the_contract(name: str) -> None:
    type_ = load_schema().type_map[name]
    assert isinstance(type_, GraphQLEnumType)
    assert list(type_.values) == contract.ENUMS[name].split()


def test_each_union_has_the_members_of_the_contract() -> None:
    unions = {n: t for n, t in load_schema().type_map.items() if isinstance(t, GraphQLUnionType)}
    assert {name: " ".join(member.name for member in union.types) for name, union in unions.items()} == {
        name: contract.UNIONS[name] for name in unions
    }


@pytest.mark.parametrize("root", ROOTS)
def test_the_root_fields_are_the_contracts_and_those_we_add(root: str) -> None:
    assert signatures(load_schema().type_map[root]) == wanted(ROOTS[root])


def test_nothing_is_declared_that_is_not_in_the_contract() -> None:
    known = contract.TYPES.keys() | contract.ENUMS.keys() | contract.UNIONS.keys() | ROOTS.keys() | SCALARS
    plain = {n for n in DECLARED if is_specified_scalar_type(load_schema().type_map[n])}
    assert set(DECLARED) - plain <= known


def test_every_root_field_is_served() -> None:
    schema = load_schema()
    assert schema.query_type is not None
    assert schema.mutation_type is not None
    assert schema.subscription_type is not None
    assert schema.query_type.fields.keys() == QUERIES.keys() | LISTS.keys()
    assert schema.mutation_type.fields.keys() == MUTATIONS.keys()
    assert schema.subscription_type.fields.keys() == STREAMS.keys()


def test_the_engines_enum_is_the_schemas() -> None:
    assert [each.value for each in StateType] == contract.ENUMS["StateType"].split()


def test_every_type_and_every_root_field_is_described() -> None:
    for name, type_ in load_schema().type_map.items():
        if is_introspection_type(type_) or name in {"Query", "Subscription"}:
            continue
        if isinstance(type_, GraphQLInputObjectType):
            assert type_.description or any(field.description for field in type_.fields.values()), name
        else:
            assert type_.description, name
    for root in ROOTS:
        type_ = load_schema().type_map[root]
        assert isinstance(type_, GraphQLObjectType)
        assert all(field.description for field in type_.fields.values())
