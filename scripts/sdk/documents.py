"""GraphQL documents of operations."""

from __future__ import annotations

import textwrap

import graphql
from graphql import (
    GraphQLField,
    GraphQLInterfaceType,
    GraphQLNonNull,
    GraphQLObjectType,
    GraphQLType,
    GraphQLUnionType,
)

from scripts.sdk.schema import is_many, named, snake
from scripts.sdk.texts import WIDTH

__all__ = ["constant", "document"]

_LEVELS = 3  # of a type inside itself that a document selects


def selection(type_: GraphQLType, *, depth: int = 0, seen: tuple[str, ...] = ()) -> str:
    """Write what is selected of a type: everything, but of a type inside itself only what must be there."""
    kind = named(type_)
    if isinstance(kind, GraphQLUnionType):
        members = " ".join(
            f"... on {member.name} {selection(member, depth=depth, seen=seen)}" for member in kind.types
        )
        return f"{{ __typename {members} }}"
    if not isinstance(kind, (GraphQLObjectType, GraphQLInterfaceType)):
        return ""
    parts = []
    for name, field in kind.fields.items():
        inner = named(field.type)
        if graphql.is_leaf_type(inner):
            parts.append(name)
        elif seen.count(inner.name) >= _LEVELS or (depth >= 1 and kind.name == "McpServer"):
            # Too deep inside itself, or inside a session: only what the type cannot be without.
            if isinstance(field.type, GraphQLNonNull) and not is_many(field.type):
                parts.append(f"{name} {selection(field.type, depth=depth + 1, seen=(*seen, kind.name))}")
        else:
            parts.append(f"{name} {selection(field.type, depth=depth + 1, seen=(*seen, kind.name))}")
    return "{ " + " ".join(parts) + " }"


def document(kind: str, name: str, field: GraphQLField) -> str:
    """Write an operation with one root field and all of its arguments as variables."""
    operation = name[0].upper() + name[1:]
    variables = ", ".join(f"${argument}: {a.type}" for argument, a in field.args.items())
    arguments = ", ".join(f"{argument}: ${argument}" for argument in field.args)
    head = f"{kind} {operation}" + (f"({variables})" if variables else "")
    call = name + (f"({arguments})" if arguments else "")
    text = f"{head} {{ {call} {selection(field.type)} }}".replace("  ", " ")
    return "\n".join(textwrap.wrap(text, WIDTH - 6, break_long_words=False, break_on_hyphens=False))


def constant(name: str) -> str:
    return "_" + snake(name).upper()
