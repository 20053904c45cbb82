"""The schema the server serves: the files of ``schema/``, one per domain, read and built once."""

from __future__ import annotations

import functools
from functools import partial
from importlib import resources
from typing import Final, final

from graphql import (
    BooleanValueNode,
    ConstValueNode,
    FloatValueNode,
    GraphQLError,
    GraphQLField,
    GraphQLNonNull,
    GraphQLObjectType,
    GraphQLResolveInfo,
    GraphQLScalarType,
    GraphQLSchema,
    IntValueNode,
    ListValueNode,
    NullValueNode,
    ObjectValueNode,
    StringValueNode,
    build_schema,
    value_from_ast_untyped,
)

from circuit_breaker_server.engine.json_values import InvalidJSON, check_json

__all__ = ["REDACTION", "Redaction", "give", "load_schema", "schema_text"]

REDACTION: Final = "redaction"
"""Among the extensions of a field: its :class:`Redaction`."""

_BASE = "base.graphql"
_INTEGER_DIGITS = 20  # of the greatest 64-bit integer; int() of very many digits is slow


def schema_text() -> str:
    """Return the text of the schema: what all domains share, then each domain."""
    files = resources.files("circuit_breaker_server").joinpath("schema").iterdir()
    found = sorted((f for f in files if f.name.endswith(".graphql")), key=lambda f: (f.name != _BASE, f.name))
    return "\n".join(file.read_text(encoding="utf-8") for file in found)


@functools.cache
def load_schema() -> GraphQLSchema:
    """Build the schema, once. Enums are their names; the JSON scalar takes and gives values as they stand."""
    schema = build_schema(schema_text())
    scalar = schema.type_map["JSON"]
    if not isinstance(scalar, GraphQLScalarType):
        raise TypeError("the schema's JSON is not a scalar")
    scalar.coerce_output_value = give
    scalar.coerce_input_value = _take
    scalar.coerce_input_literal = _take_literal
    _redact(schema)
    return schema


def _redact(schema: GraphQLSchema) -> None:
    """Give the fields with ``@secret`` and ``@needs`` a resolver that withholds them."""
    for type_ in schema.type_map.values():
        for name, field in type_.fields.items() if isinstance(type_, GraphQLObjectType) else ():
            for directive in (field.ast_node.directives or ()) if field.ast_node else ():
                if directive.name.value == "secret":
                    redaction = Redaction(None, field)
                elif directive.name.value == "needs":
                    scope = next(iter(directive.arguments))
                    redaction = Redaction(str(value_from_ast_untyped(scope.value)), field)
                else:
                    continue
                field.extensions = {**field.extensions, REDACTION: redaction}
                field.resolve = partial(_withhold, redaction, name)


@final
class Redaction:
    """The rule that withholds a field from callers without a scope.

    :ivar scope: callers with it see the field; ``None``: no caller does.
    :ivar instead: the value in its place: ``""`` where the field is not null, else ``None``.
    """

    def __init__(self, scope: str | None, field: GraphQLField) -> None:
        self.scope = scope
        self.instead = "" if isinstance(field.type, GraphQLNonNull) else None

    def withholds(self, withheld: object) -> bool:
        """Tell whether it withholds the field from a caller without these scopes; an unknown one has none."""
        return self.scope is None or not isinstance(withheld, frozenset) or self.scope in withheld


def _withhold(
    redaction: Redaction, name: str, source: object, info: GraphQLResolveInfo[object], **_: object
) -> object:
    if redaction.withholds(info.context):
        return redaction.instead
    value = source[name] if isinstance(source, dict) else None
    return value() if callable(value) else value


def give(value: object) -> object:
    """Give a value of the scalar JSON, as it is."""
    return value


def _take(value: object) -> object:
    try:
        check_json(value)
    except InvalidJSON as error:
        raise GraphQLError(f"JSON cannot represent the value: {error}") from error
    return value


def _take_literal(node: ConstValueNode) -> object:
    return _take(_value(node))


def _value(node: ConstValueNode) -> object:
    match node:
        case NullValueNode():
            return None
        case StringValueNode() | BooleanValueNode():
            return node.value
        case IntValueNode():
            if len(node.value) > _INTEGER_DIGITS:
                raise GraphQLError("JSON cannot represent an integer of more than 64 bits.", node)
            return int(node.value)
        case FloatValueNode():
            return float(node.value)
        case ListValueNode():
            return [_value(item) for item in node.values]
        case ObjectValueNode():
            return {field.name.value: _value(field.value) for field in node.fields}
        case _:
            raise GraphQLError("JSON cannot represent an enum value; write it as a string.", node)
