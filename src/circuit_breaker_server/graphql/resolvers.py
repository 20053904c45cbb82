"""From the fields of a document to the engine's answers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import final

from graphql import GraphQLResolveInfo

from circuit_breaker_server.engine.command import Committed, Value
from circuit_breaker_server.engine.cursor import Cursor
from circuit_breaker_server.engine.engine import Engine
from circuit_breaker_server.graphql.roots import agents, analytics, llm, mcp, nats, rules, workflows
from circuit_breaker_server.graphql.roots.arguments import Arguments, Mutation, Query

__all__ = ["MUTATIONS", "QUERIES", "Root", "Told", "resolve"]


@final
class Root:
    """The value at the root of one operation.

    :ivar cursor: of the last record that a mutation of the operation made; ``None`` before.
    """

    __slots__ = ("cursor", "engine", "is_mutation")

    def __init__(self, engine: Engine, *, is_mutation: bool) -> None:
        self.engine = engine
        self.is_mutation = is_mutation
        self.cursor: Cursor | None = None

    def field(self, name: str, arguments: Arguments) -> object:
        """Answer a root field: its value, or the promise of it."""
        if self.is_mutation:
            return self._mutate(MUTATIONS[name](self.engine, arguments))
        return QUERIES[name](self.engine, arguments)

    async def _mutate(self, command: Awaitable[Committed[object] | Value]) -> object:
        done = await command
        if not isinstance(done, Committed):
            return done
        self.cursor = done.cursor
        return done.value


@final
class Told:
    """The value at the root of a mutation that is not executed: its only field's value is given.

    :param answers: makes the value, or raises what the field is refused by.
    """

    __slots__ = ("_answers",)

    def __init__(self, answers: Callable[[], object]) -> None:
        self._answers = answers

    def field(self, _name: str, _arguments: Arguments) -> object:
        """Answer the root field."""
        return self._answers()


def resolve(source: object, info: GraphQLResolveInfo[object], **arguments: object) -> object:
    """Resolve any field: the engine's answers hold every field by its name; see ``Value``."""
    if isinstance(source, dict):
        value = source[info.field_name]
        return value() if callable(value) else value
    if isinstance(source, (Root, Told)):
        return source.field(info.field_name, arguments)
    raise TypeError(f"{info.parent_type}.{info.field_name} is selected of {type(source).__name__}")


_DOMAINS = (workflows, rules, nats, agents, llm, analytics, mcp)

QUERIES: Mapping[str, Query] = {
    "health": lambda _engine, _given: "ok",
    **{name: query for domain in _DOMAINS for name, query in domain.QUERIES.items()},
}

MUTATIONS: Mapping[str, Mutation] = {
    name: mutation for domain in _DOMAINS for name, mutation in domain.MUTATIONS.items()
}
