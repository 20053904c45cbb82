"""Root fields with ids in their arguments: what a caller names who may not see it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Final, Literal

from graphql import (
    GraphQLEnumType,
    GraphQLField,
    GraphQLInputObjectType,
    GraphQLInputType,
    GraphQLList,
    GraphQLNonNull,
    GraphQLObjectType,
    get_named_type,
    is_composite_type,
)

from circuit_breaker_server.graphql.schema import load_schema

__all__ = ["KINDS_OF_IDS", "NOBODYS", "Operation", "with_ids", "written"]

Operation = Literal["query", "mutation", "subscription"]
NOBODYS: Final = "00000000-0000-4000-8000-000000000000"
"""An id that nothing has."""

_OF_ID: Final = {
    "workflow": "workflow",
    "resource": "resource",
    "natsResource": "resource",
    "rule": "rule",
    "updateRule": "rule",
    "deleteRule": "rule",
    "agent": "agent",
    "agentExecution": "execution",
    "llmProvider": "provider",
    "mcpServer": "server",
    "updateMcpServer": "server",
    "deleteMcpServer": "server",
    "toggleMcpServer": "server",
}
"""Root fields whose argument is only called id: what it is the id of."""
_NAMED: Final = {
    "workflowId": "workflow",
    "resourceId": "resource",
    "ruleId": "rule",
    "agentId": "agent",
    "executionId": "execution",
    "serverId": "server",
    "sessionId": "session",
}
_WORDS: Final = {
    "stateId": "left",
    "newState": "right",
    "activityId": "ping",
    "conditionType": "FieldExists",
    "field": "n",
    "algorithm": "RS256",
}


class _Writer:
    """Writes root fields with ids in them."""

    def __init__(self, field: str, ids: Mapping[str, str]) -> None:
        self.field = field
        self.ids = ids
        self.used: set[str] = set()

    def arguments(self, field: GraphQLField) -> str:
        written = self._members({name: arg.type for name, arg in field.args.items()})
        return f"({', '.join(written)})" if written else ""

    def _members(self, types: Mapping[str, GraphQLInputType]) -> list[str]:
        return [
            f"{name}: {self._value(name, type_)}"
            for name, type_ in types.items()
            if isinstance(type_, GraphQLNonNull) or name in _NAMED or name in _WORDS
        ]

    def _value(self, name: str, type_: GraphQLInputType) -> str:
        if isinstance(type_, GraphQLNonNull):
            return self._value(name, type_.of_type)
        if isinstance(type_, GraphQLList):
            return "[]"
        if isinstance(type_, GraphQLEnumType):
            return str(next(iter(type_.values)))
        if isinstance(type_, GraphQLInputObjectType):
            return "{" + ", ".join(self._members({n: f.type for n, f in type_.fields.items()})) + "}"
        kind = _OF_ID.get(self.field) if name == "id" else _NAMED.get(name)
        if kind is not None:
            self.used.add(kind)
            return json.dumps(self.ids[kind])
        plain = {"Int": "1", "Float": "1.5", "Boolean": "true", "JSON": "{}"}
        return plain.get(type_.name, json.dumps(_WORDS.get(name, "x")))


def _roots() -> Mapping[Operation, GraphQLObjectType | None]:
    schema = load_schema()
    return {
        "query": schema.query_type,
        "mutation": schema.mutation_type,
        "subscription": schema.subscription_type,
    }


def written(kind: Operation, name: str, ids: Mapping[str, str]) -> tuple[str, set[str]]:
    """Write an operation of one root field, and return it with the kinds of ids that stand in it.

    :param ids: by their kind.
    """
    root = _roots()[kind]
    if root is None:
        raise ValueError(f"the schema has no {kind}")
    field = root.fields[name]
    writer = _Writer(name, ids)
    inner = " { __typename }" if is_composite_type(get_named_type(field.type)) else ""
    return f"{kind} {{ {name}{writer.arguments(field)}{inner} }}", writer.used


KINDS_OF_IDS: Final = frozenset({*_NAMED.values(), *_OF_ID.values()})


def with_ids() -> list[tuple[Operation, str]]:
    """Return every root field that takes an id, with its kind of operation."""
    nobodys = dict.fromkeys(KINDS_OF_IDS, NOBODYS)
    fields = [(kind, name) for kind, root in _roots().items() if root is not None for name in root.fields]
    return [each for each in fields if written(*each, nobodys)[1]]
