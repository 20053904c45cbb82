"""The root fields of queries and mutations, and what the engine does for each."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from typing import TypeVar, final

import msgspec
from graphql import GraphQLResolveInfo

from circuit_breaker_server.engine.cursor import Cursor
from circuit_breaker_server.engine.engine import Committed, Engine
from circuit_breaker_server.engine.inputs import (
    CreateResource,
    CreateWorkflow,
    ExecuteActivity,
    StateInput,
    StateUpdate,
)
from circuit_breaker_server.engine.queries import Value

__all__ = ["MUTATIONS", "QUERIES", "Root", "resolve"]

Arguments = Mapping[str, object]

_TURN = 64  # items of a long list between two turns of the event loop

_I = TypeVar("_I")


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

    async def _mutate(self, command: Awaitable[Committed]) -> Value:
        committed = await command
        self.cursor = committed.cursor
        return committed.value


def resolve(source: object, info: GraphQLResolveInfo[object], **arguments: object) -> object:
    """Resolve any field: the engine's answers hold every field by its name; see ``Value``."""
    if isinstance(source, Root):
        return source.field(info.field_name, arguments)
    if not isinstance(source, Mapping):
        raise TypeError(f"{info.parent_type}.{info.field_name} is selected of {type(source).__name__}")
    value = source[info.field_name]
    return value() if callable(value) else value


QUERIES: Mapping[str, Callable[[Engine, Arguments], object]] = {
    "health": lambda _engine, _arguments: "ok",
    "workflow": lambda engine, arguments: engine.workflow(_text(arguments, "id")),
    "workflows": lambda engine, _arguments: _in_turns(engine.workflows()),
    "resource": lambda engine, arguments: engine.resource(_text(arguments, "id")),
    "resources": lambda engine, arguments: _in_turns(
        engine.resources(None if arguments.get("workflowId") is None else _text(arguments, "workflowId"))
    ),
    "availableActivities": lambda engine, arguments: engine.available_activities(
        _text(arguments, "resourceId")
    ),
    "state": lambda engine, arguments: engine.state(
        _text(arguments, "workflowId"), _text(arguments, "stateId")
    ),
    "workflowStates": lambda engine, arguments: engine.workflow_states(_text(arguments, "workflowId")),
}

MUTATIONS: Mapping[str, Callable[[Engine, Arguments], Awaitable[Committed]]] = {
    "createWorkflow": lambda engine, arguments: engine.create_workflow(_input(arguments, CreateWorkflow)),
    "createResource": lambda engine, arguments: engine.create_resource(_input(arguments, CreateResource)),
    "executeActivity": lambda engine, arguments: engine.execute_activity(_input(arguments, ExecuteActivity)),
    "createState": lambda engine, arguments: engine.create_state(_input(arguments, StateInput)),
    "updateState": lambda engine, arguments: engine.update_state(
        _text(arguments, "workflowId"), _text(arguments, "stateId"), _input(arguments, StateUpdate)
    ),
}


def _text(arguments: Arguments, name: str) -> str:
    return str(arguments[name])


def _input(arguments: Arguments, kind: type[_I]) -> _I:
    return msgspec.convert(arguments["input"], kind)


def _in_turns(items: Iterator[Value]) -> list[Value] | AsyncIterator[Value]:
    """Let others run while a long list is worked through; a short one is done at once."""
    first = list(itertools.islice(items, _TURN))
    return first if len(first) < _TURN else _slowly(first, items)


async def _slowly(first: list[Value], rest: Iterator[Value]) -> AsyncIterator[Value]:
    for i, item in enumerate(itertools.chain(first, rest)):
        if i % _TURN == 0:
            await asyncio.sleep(0)
        yield item
