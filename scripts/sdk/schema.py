"""The schema as the SDK has it: Python names, annotations, what belongs to a domain."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import graphql
from graphql import (
    GraphQLField,
    GraphQLInputObjectType,
    GraphQLInterfaceType,
    GraphQLList,
    GraphQLNonNull,
    GraphQLObjectType,
    GraphQLType,
)

from scripts.sdk.names import DOMAINS, MODULES, NAMES

__all__ = [
    "PACKAGE",
    "ROOT",
    "SCHEMA",
    "annotation",
    "definitions",
    "exported_by_hand",
    "exported_types",
    "flattened",
    "imports_of_domains",
    "in_order",
    "input_type",
    "is_json",
    "is_many",
    "module_of",
    "named",
    "python_name",
    "root_fields",
    "snake",
]

# Nothing is imported of the packages: what is generated must not be needed to generate it.
ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "src" / "circuit_breaker_sdk"
SCHEMA_FILES = ROOT / "src" / "circuit_breaker_server" / "schema"
SCHEMA = graphql.build_schema("\n".join(f.read_text("utf-8") for f in sorted(SCHEMA_FILES.glob("*.graphql"))))
SCALARS = {
    "String": "str",
    "ID": "str",
    "Int": "int",
    "Float": "float",
    "Boolean": "bool",
    "DateTime": "datetime",
}
_TIME = re.compile(r"[a-z]+At|timestamp|lastCheck|lastUpdated|natsTimestamp")


def snake(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()


def python_name(name: str) -> str:
    """Name the class of a type of the schema."""
    if name in NAMES:
        return NAMES[name]
    name = name.removesuffix("GQL")
    return re.sub(r"^(Llm|Mcp)", lambda found: found[0].upper(), name)


def named(type_: GraphQLType) -> graphql.GraphQLNamedType:
    """Return what a type is of, without lists and exclamation marks."""
    return graphql.get_named_type(type_)


def root_fields(kind: str) -> Mapping[str, GraphQLField]:
    """Return the root fields of ``Query``, ``Mutation`` or ``Subscription``."""
    root = SCHEMA.type_map[kind]
    if not isinstance(root, GraphQLObjectType):
        raise TypeError(f"the schema's {kind} is no object")
    fields: Mapping[str, GraphQLField] = root.fields
    return fields


def input_type(argument: graphql.GraphQLArgument) -> GraphQLInputObjectType:
    """Return the type of an argument ``input``."""
    type_ = named(argument.type)
    if not isinstance(type_, GraphQLInputObjectType):
        raise TypeError(f"an argument input is of {type_.name}, which is no input")
    return type_


def is_json(type_: GraphQLType) -> bool:
    return named(type_).name == "JSON"


def is_many(type_: GraphQLType) -> bool:
    return isinstance(type_.of_type if isinstance(type_, GraphQLNonNull) else type_, GraphQLList)


def annotation(name: str, type_: GraphQLType, *, given: bool = False) -> str:
    """Return the annotation of a value; ``given``: of an input."""
    optional = not isinstance(type_, GraphQLNonNull)
    if isinstance(type_, GraphQLNonNull):
        type_ = type_.of_type
    if isinstance(type_, GraphQLList):
        inner = annotation(name, type_.of_type, given=given)
        text = f"Sequence[{inner}]" if given else f"tuple[{inner}, ...]"
    elif is_json(type_):
        return "JSONInput" if given else "JSON"
    else:
        kind = named(type_).name
        text = SCALARS.get(kind) or python_name(kind)
        if kind == "String" and _TIME.fullmatch(name) and not given:
            text = "datetime"
    return f"{text} | None" if optional else text


def module_of(domain: str) -> str:
    """Name the module of a domain's types."""
    return MODULES.get(domain, domain)


def definitions(domain: str) -> tuple[list[str], list[str], list[str], list[str]]:
    """Return the types, queries, mutations and subscriptions of a domain, in the order of its file."""
    text = (SCHEMA_FILES / f"{domain}.graphql").read_text("utf-8")
    types: list[str] = []
    roots: dict[str, list[str]] = {"Query": [], "Mutation": [], "Subscription": []}
    for node in graphql.parse(text).definitions:
        if isinstance(node, graphql.ObjectTypeExtensionNode):
            roots[node.name.value] += [field.name.value for field in node.fields or ()]
        elif isinstance(node, graphql.TypeDefinitionNode) and node.name.value not in roots:
            types.append(node.name.value)
    return types, roots["Query"], roots["Mutation"], roots["Subscription"]


def in_order(names: Iterable[str]) -> list[str]:
    """Put types behind those that they are made of; recursion is left as it is, annotations are texts."""
    wanted, done = list(names), []

    def visit(name: str, path: tuple[str, ...]) -> None:
        if name in done or name in path or name not in wanted:
            return
        type_ = SCHEMA.type_map[name]
        for field in getattr(type_, "fields", {}).values():
            visit(named(field.type).name, (*path, name))
        for member in getattr(type_, "types", ()):
            visit(member.name, (*path, name))
        done.append(name)

    for name in wanted:
        visit(name, ())
    return done


def flattened() -> set[str]:
    """Return the inputs whose fields are the arguments of a method."""
    fields = (*root_fields("Query").values(), *root_fields("Mutation").values())
    return {input_type(field.args["input"]).name for field in fields if "input" in field.args}


def imports_of_domains(body: str, own: Sequence[str] = (), but: str | None = None) -> list[str]:
    """Import the types of domains that a text names."""
    lines = []
    for domain, names in {**exported_types(), "workflows": exported_by_hand("workflows")}.items():
        used = [n for n in names if n not in own and re.search(rf"(?<![\w`.]){n}\b", body)]
        if used and domain != but:
            lines.append(
                f"from circuit_breaker_sdk.events.{module_of(domain)} import {', '.join(sorted(used))}\n"
            )
    return sorted(lines)


def exported_types() -> Mapping[str, list[str]]:
    """Return the classes that each domain's module of types exports."""
    left_out = flattened()
    skipped = (graphql.GraphQLScalarType, GraphQLInterfaceType)
    return {
        domain: [
            python_name(name)
            for name in definitions(domain)[0]
            if name not in left_out and not isinstance(SCHEMA.type_map[name], skipped)
        ]
        for domain in DOMAINS
    }


def exported_by_hand(module: str) -> list[str]:
    """Return what a module of types that is written by hand exports."""
    for node in ast.parse((PACKAGE / "events" / f"{module}.py").read_text("utf-8")).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return [str(name) for name in ast.literal_eval(node.value)]
    raise ValueError(f"events/{module}.py has no __all__")
