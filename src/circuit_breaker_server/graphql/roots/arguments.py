"""Read the arguments of root fields."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import TypeAlias, TypeVar

import msgspec

from circuit_breaker_server.engine.command import Committed, Value
from circuit_breaker_server.engine.engine import Engine

__all__ = [
    "Arguments",
    "List",
    "MaySee",
    "Mutation",
    "Query",
    "input_of",
    "number",
    "optional_text",
    "text",
    "texts",
]

Arguments: TypeAlias = Mapping[str, object]
Query: TypeAlias = Callable[[Engine, Arguments], object]
MaySee: TypeAlias = Callable[[str], bool]
"""Tells whether the caller may see a workflow, and with it its resources."""
List: TypeAlias = Callable[[Engine, Arguments, MaySee | None], Iterator[Value | None]]
"""A list, item by item, in the order of creation; ``None`` stands for what is looked at and not wanted.

The function leaves out the items that the caller may not see; where there is an index, it skips them.
``None`` for :data:`MaySee` stands for every workflow.
"""
Mutation: TypeAlias = Callable[[Engine, Arguments], Awaitable[Committed[object] | Value]]
"""A bare answer is that of a mutation that changed nothing, and so made no record."""

_I = TypeVar("_I")


def text(arguments: Arguments, name: str) -> str:
    """Return an argument that is there."""
    return str(arguments[name])


def optional_text(arguments: Arguments, name: str) -> str | None:
    """Return an argument, ``None`` where it is null or not there."""
    value = arguments.get(name)
    return None if value is None else str(value)


def texts(arguments: Arguments, name: str) -> list[str]:
    """Return an argument that is a list of texts, empty where it is null or not there."""
    return msgspec.convert(arguments.get(name) or [], list[str])


def number(arguments: Arguments, name: str) -> float:
    """Return an argument of the type Float."""
    return msgspec.convert(arguments[name], float)


def input_of(arguments: Arguments, kind: type[_I]) -> _I:
    """Return the argument ``input`` as the engine's type for it."""
    return msgspec.convert(arguments["input"], kind)
