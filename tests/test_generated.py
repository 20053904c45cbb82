"""What the SDK says of the API is what the server's schema says: types, nullability, enums, documents."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import types
import typing
from pathlib import Path

import graphql
import msgspec
import pytest
from graphql import (
    GraphQLEnumType,
    GraphQLInputObjectType,
    GraphQLNonNull,
    GraphQLObjectType,
    is_introspection_type,
)

import circuit_breaker_sdk
from circuit_breaker_sdk import Client, domains, events
from circuit_breaker_server.graphql.schema import load_schema
from scripts import generate_sdk
from scripts.sdk.names import LENIENT, STREAMS, UNLIMITED
from scripts.sdk.schema import python_name, snake

SCHEMA = load_schema()
PACKAGE = Path(circuit_breaker_sdk.__file__).parent
MORE_LENIENT = {
    "StateGQL": {"isInitial", "isTerminal", "createdAt", "updatedAt"},
    "WorkflowGQL": {"createdAt", "updatedAt"},
}
"""Fields of the workflow domain that the SDK can do without."""

NOT_IN_THE_SDK = {"WorkflowGQL": {"description"}}
ROOTS = {"Query", "Mutation", "Subscription"}


def sdk_type(name: str) -> type | None:
    return getattr(events, python_name(name), None)


OBJECTS = [
    name
    for name, type_ in SCHEMA.type_map.items()
    if isinstance(type_, GraphQLObjectType) and not is_introspection_type(type_) and name not in ROOTS
]
ENUMS = [n for n, t in SCHEMA.type_map.items() if isinstance(t, GraphQLEnumType) and n[:2] != "__"]
INPUTS = [n for n, t in SCHEMA.type_map.items() if isinstance(t, GraphQLInputObjectType)]


def test_the_generated_files_are_what_the_generator_writes(tmp_path: Path) -> None:
    for path in generate_sdk.write(tmp_path):
        name = path.relative_to(tmp_path)
        assert path.read_text() == (PACKAGE / name).read_text(), f"{name}: run `make generate`"


@pytest.mark.parametrize("name", OBJECTS)
def test_each_type_has_the_fields_of_the_schema_and_is_null_where_it_says_so(name: str) -> None:
    type_ = SCHEMA.type_map[name]
    assert isinstance(type_, GraphQLObjectType)
    struct = sdk_type(name)
    assert struct is not None
    fields = {field.encode_name: field for field in msgspec.structs.fields(struct)}
    assert fields.keys() == type_.fields.keys() - NOT_IN_THE_SDK.get(name, set())
    lenient = {*LENIENT.get(name, ()), *MORE_LENIENT.get(name, ()), *UNLIMITED.get(name, ())}
    for field_name, field in fields.items():
        if field.type is msgspec.Raw:
            continue  # JSON: null is one of its values
        nullable = not isinstance(type_.fields[field_name].type, GraphQLNonNull)
        allows_none = types.NoneType in typing.get_args(field.type)
        if field_name not in lenient:
            assert allows_none == nullable, f"{name}.{field_name}"


@pytest.mark.parametrize("name", ENUMS)
def test_each_enum_has_the_values_of_the_schema(name: str) -> None:
    type_, enum = SCHEMA.type_map[name], sdk_type(name)
    assert isinstance(type_, GraphQLEnumType)
    assert enum is not None
    assert [member.value for member in enum] == list(type_.values)  # type: ignore[attr-defined]  # an enum


@pytest.mark.parametrize("name", [n for n in INPUTS if sdk_type(n) is not None])
def test_each_input_has_the_fields_of_the_schema_and_needs_what_it_needs(name: str) -> None:
    type_, struct = SCHEMA.type_map[name], sdk_type(name)
    assert isinstance(type_, GraphQLInputObjectType)
    assert struct is not None
    fields = {field.encode_name: field for field in msgspec.structs.fields(struct)}
    assert fields.keys() == type_.fields.keys()
    for field_name, field in fields.items():
        if field.required:
            assert isinstance(type_.fields[field_name].type, GraphQLNonNull), f"{name}.{field_name}"


def documents() -> list[tuple[str, str]]:
    found = []
    for module_info in pkgutil.iter_modules(domains.__path__):
        module = importlib.import_module(f"{domains.__name__}.{module_info.name}")
        for name, value in vars(module).items():
            if isinstance(value, str) and value.split()[:1] in (["query"], ["mutation"], ["subscription"]):
                found.append((f"{module_info.name}.{name}", value))
    return found


@pytest.mark.parametrize(("name", "document"), documents())
def test_each_document_is_valid(name: str, document: str) -> None:
    assert graphql.validate(SCHEMA, graphql.parse(document)) == [], name


def test_every_stream_has_a_document() -> None:
    assert SCHEMA.subscription_type is not None
    text = " ".join(" ".join(document.split()) for _, document in documents())
    for field in SCHEMA.subscription_type.fields:
        assert f" {field}(" in text, field


@pytest.mark.parametrize("name", STREAMS)
def test_only_the_argument_that_a_stream_needs_may_be_positional(name: str) -> None:
    assert SCHEMA.subscription_type is not None
    arguments = SCHEMA.subscription_type.fields[name].args
    needed = [snake(a) for a, found in arguments.items() if isinstance(found.type, GraphQLNonNull)]
    stream, client = STREAMS[name], Client("ws://localhost/graphql")
    own = getattr(getattr(client, stream.domain), f"subscribe_{stream.suffix}")
    for method in (own, getattr(client.subscriptions, stream.suffix_in_all)):
        parameters = inspect.signature(method).parameters.values()
        assert [p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD] == needed[:1]


def test_a_positional_argument_is_the_one_that_the_server_needs() -> None:
    client = Client("ws://localhost/graphql")
    for builder in (client.llm.subscribe_stream("r-1"), client.subscriptions.llm_stream("r-1")):
        assert builder._operation.variables == {"requestId": "r-1"}
    assert client.workflows.subscribe_workflow_events("w-1")._operation.variables == {"workflowId": "w-1"}
