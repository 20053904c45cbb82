"""Resolve the fields of an operation, and the root values of operations that are not executed."""

from __future__ import annotations

from collections.abc import Callable
from typing import final

import msgspec
from graphql import GraphQLResolveInfo

from circuit_breaker_server.access.caller import Caller
from circuit_breaker_server.access.fields import MUTATION_RULES, Verdict, judge, keep
from circuit_breaker_server.engine.engine import Engine
from circuit_breaker_server.engine.errors import EngineError, ErrorCode
from circuit_breaker_server.graphql.operation_root import ITEMS_AT_ONCE, Root
from circuit_breaker_server.graphql.roots.arguments import Arguments
from circuit_breaker_server.security.rights import EVERYTHING, Rights

__all__ = ["Answered", "GivenAnswer", "Judging", "resolve"]


@final
class GivenAnswer:
    """The value at the root of a mutation that is not executed: its only field's value is given.

    :param answers: makes the value, or raises what the field is refused by.
    :param rights: the caller's rights: items that they may not read are left out.
    """

    __slots__ = ("_answers", "_rights")

    def __init__(self, answers: Callable[[], object], rights: Rights = EVERYTHING) -> None:
        self._answers = answers
        self._rights = rights

    def field(self, name: str, _arguments: Arguments) -> object:
        """Answer the root field."""
        return keep(MUTATION_RULES[name], self._rights, self._answers())


@final
class Answered:
    """The value at the root of an operation whose only field was answered already.

    :ivar value: the answer, or what the field was refused by.
    :ivar root: the root that answered it.
    """

    __slots__ = ("root", "value")

    def __init__(self, value: object, root: Root | None = None) -> None:
        self.value = value
        self.root = root

    def field(self, _name: str, _arguments: Arguments) -> object:
        """Answer the root field."""
        if isinstance(self.value, Exception):
            raise self.value
        return self.value


@final
class Judging:
    """The value at the root of a mutation that is not executed: it is only told whether it would be.

    :ivar is_allowed: whether it would.
    """

    __slots__ = ("_caller", "_engine", "is_allowed")

    def __init__(self, engine: Engine, caller: Caller) -> None:
        self._engine = engine
        self._caller = caller
        self.is_allowed = False

    def field(self, name: str, arguments: Arguments) -> object:
        """Refuse the root field, or note that it is allowed."""
        asker = self._caller.id
        verdict = judge(MUTATION_RULES[name], name, self._engine, self._caller.rights, arguments, asker=asker)
        if verdict is Verdict.HIDDEN:
            raise EngineError(ErrorCode.FORBIDDEN, f"{name} is not for you any more")
        self.is_allowed = True
        return None


def resolve(source: object, info: GraphQLResolveInfo[object], **arguments: object) -> object:
    """Resolve any field: the engine's answers hold every field by its name; see ``Value``."""
    if isinstance(source, dict):
        value = source[info.field_name]
        if callable(value):
            value = value()
        root = info.root_value
        if isinstance(root, Answered):
            root = root.root
        if isinstance(root, Root):
            if type(value) is list:
                root.count(len(value), info)
                return root.in_slices(iter(value)) if len(value) > ITEMS_AT_ONCE else value
            if isinstance(value, (str, msgspec.Raw)):
                root.bytes_left -= len(value)
        return value
    if isinstance(source, (Root, GivenAnswer, Judging, Answered)):
        return source.field(info.field_name, arguments)
    raise TypeError(f"{info.parent_type}.{info.field_name} is selected of {type(source).__name__}")
