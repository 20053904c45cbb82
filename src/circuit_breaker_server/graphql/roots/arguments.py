"""What all root fields use: their arguments read, their long lists answered in turns."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from typing import TypeAlias, TypeVar

import msgspec

from circuit_breaker_server.engine.command import Committed, Value
from circuit_breaker_server.engine.engine import Engine

__all__ = [
    "Arguments",
    "Mutation",
    "Query",
    "in_turns",
    "input_of",
    "number",
    "optional_text",
    "text",
    "texts",
]

Arguments: TypeAlias = Mapping[str, object]
Query: TypeAlias = Callable[[Engine, Arguments], object]
Mutation: TypeAlias = Callable[[Engine, Arguments], Awaitable[Committed[object] | Value]]
"""A bare answer is that of a mutation that changed nothing, and so made no record."""

_TURN = 64  # items of a long list between two turns of the event loop

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


def in_turns(items: Iterator[Value] | Iterator[Value | None]) -> list[Value] | AsyncIterator[Value]:
    """Let others run while a long list is worked through; a short one is done at once.

    ``None`` stands for what was looked at and is not wanted: it takes its turn, and is left out.
    """
    first = list(itertools.islice(items, _TURN))
    if len(first) < _TURN:
        return [item for item in first if item is not None]
    return _slowly(first, items)


async def _slowly(first: list[Value | None], rest: Iterator[Value | None]) -> AsyncIterator[Value]:
    for i, item in enumerate(itertools.chain(first, rest)):
        if i % _TURN == 0:
            await asyncio.sleep(0)
        if item is not None:
            yield item
