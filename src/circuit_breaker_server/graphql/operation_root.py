"""The root value of an executed operation: it checks rights, asks the engine, and bounds the answer."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from typing import Final, Literal, final

import msgspec
from graphql import GraphQLResolveInfo

from circuit_breaker_server.access.audit_lines import NO_AUDIT
from circuit_breaker_server.access.caller import OPEN, Caller
from circuit_breaker_server.access.fields import (
    MUTATION_RULES,
    QUERY_RULES,
    Rule,
    Verdict,
    judge,
    keep,
    names_of,
)
from circuit_breaker_server.access.protected_objects import Thing
from circuit_breaker_server.access.sealed_cursors import opened, sealed
from circuit_breaker_server.engine.command import Committed, Value
from circuit_breaker_server.engine.command_origin import ORIGIN, Origin
from circuit_breaker_server.engine.cursor import Cursor, Cursors
from circuit_breaker_server.engine.engine import Engine
from circuit_breaker_server.engine.errors import EngineError, ErrorCode, shown
from circuit_breaker_server.engine.paging import PAGE_ITEMS
from circuit_breaker_server.engine.validation import refuse
from circuit_breaker_server.graphql.root_fields import LISTS, MUTATIONS, PAGES, QUERIES
from circuit_breaker_server.graphql.roots.arguments import Arguments, List, MaySee
from circuit_breaker_server.scheduling import Slices
from circuit_breaker_server.security.rights import Rights
from circuit_breaker_server.tracing import CALLERS_TRACE

__all__ = ["ITEMS_AT_ONCE", "MAX_ANSWER_BYTES", "MAX_ANSWER_VALUES", "Root"]


MAX_ANSWER_BYTES: Final = 8 * 1024 * 1024
"""Of the texts and JSON in one answer; a list ends with an error behind it."""
MAX_ANSWER_VALUES: Final = 100_000
"""Of lists without pages in one answer, as histories; a list with pages ends with an error after them."""
ITEMS_AT_ONCE: Final = 64
"""Items of a list that are answered at once where the operation is cheap."""
_BYTES_AT_ONCE: Final = 256 * 1024
_READING_AFTER: Final = frozenset({"resources", "resourcesInState"})
"""Lists that find the place of ``after`` themselves."""


@final
class Root:
    """The value at the root of one operation.

    :ivar caller: the caller, whose rights decide whether a field is answered, refused or hidden.
    :ivar cursors: writes them.
    :ivar cursor: of the last record that a mutation of the operation made; ``None`` before.
    :ivar has_hidden: whether a field was hidden: answered as if its object did not exist.
    :ivar bytes_left: how large what is still added to lists of the answer may be.
    :ivar values_left: how many values its lists without pages may still have.
    """

    __slots__ = (
        "bytes_left",
        "caller",
        "cursor",
        "cursors",
        "engine",
        "has_hidden",
        "is_costly",
        "is_mutation",
        "nothing",
        "slices",
        "values_left",
        "with_cursor",
    )

    def __init__(
        self,
        engine: Engine,
        *,
        is_mutation: bool,
        caller: Caller = OPEN,
        nothing: Engine | None = None,
        cursors: Cursors | None = None,
        with_cursor: bool = True,
        slices: Slices | None = None,
        is_costly: bool = False,
        max_answer_bytes: int = MAX_ANSWER_BYTES,
    ) -> None:
        """``nothing``: an engine in which nothing is; needed unless the caller may do everything.

        ``with_cursor``: whether the answer has the cursor of the mutation's record. ``slices``: of the event
        loop. ``is_costly``: whether lists are answered in slices, however short they are.
        """
        self.slices = slices or Slices()
        self.is_costly = is_costly
        self.has_hidden = False
        self.bytes_left = max_answer_bytes
        self.values_left = MAX_ANSWER_VALUES
        self.with_cursor = with_cursor
        self.cursors = cursors or Cursors(engine.epoch)
        self.engine = engine
        self.is_mutation = is_mutation
        self.caller = caller
        self.nothing = nothing
        self.cursor: Cursor | None = None

    @property
    def cursor_text(self) -> str | None:
        """The cursor for the answer's extensions; ``None`` for none."""
        return self.cursors.of(self.cursor) if self.with_cursor and self.cursor is not None else None

    def field(self, name: str, arguments: Arguments) -> object:
        """Answer a root field: its value, or the promise of it.

        :raises EngineError: as the engine does; ``FORBIDDEN``.
        """
        rights = self.caller.rights
        if self.is_mutation:
            engine = self._engine_for(MUTATION_RULES, name, rights, arguments)
            return self._mutate(name, arguments, engine)
        rule = QUERY_RULES[name]
        if rule.page is not None:
            page = PAGES[name](self.engine, opened(self.cursors, arguments), rule.page(rights))
            return sealed(self.cursors, page)
        engine = self._engine_for(QUERY_RULES, name, rights, arguments)
        make = LISTS.get(name)
        if make is None:
            return QUERIES[name](engine, arguments)
        return self.in_slices(self._page(name, make, engine, rights, arguments))

    def _page(
        self, name: str, make: List, engine: Engine, rights: Rights, arguments: Arguments
    ) -> Iterator[Value | None]:
        """Yield a page of a list, without what the caller may not see.

        :raises EngineError: as the list does, at once.
        """
        first = arguments.get("first")
        if first is None:
            first = PAGE_ITEMS
        if not isinstance(first, int) or not 1 <= first <= PAGE_ITEMS:
            refuse(f"first: {first} is not between 1 and {PAGE_ITEMS}")
        all_seen = rights.is_unlimited or engine is not self.engine
        may_see = None if all_seen or rights.allows_all("workflow", "read") else _workflows_of(rights)
        items = make(engine, arguments, may_see)
        of_item = None if all_seen else QUERY_RULES[name].item
        after = arguments.get("after")
        if after is not None and name not in _READING_AFTER:
            items = _behind(items, str(after))
        return self._bounded(items, of_item, rights, first)

    def _bounded(
        self,
        items: Iterator[Value | None],
        of_item: Callable[[Value], Thing] | None,
        rights: Rights,
        first: int,
    ) -> Iterator[Value | None]:
        left = first
        for item in items:
            if item is None or (of_item is not None and not of_item(item).may(rights, "read")):
                yield None
                continue
            if self.bytes_left < 0 or self.values_left < 0:
                raise EngineError(
                    ErrorCode.INVALID_INPUT, "the answer is too large: ask for fewer items at a time (first)"
                )
            yield item
            left -= 1
            if not left:
                return

    def count(self, items: int, info: GraphQLResolveInfo[object]) -> None:
        """Count the values of a list without pages; the page that it is in ends where they are too many."""
        selected = info.field_nodes[0].selection_set
        self.values_left -= items * (1 if selected is None else 1 + len(selected.selections))

    def in_slices(self, items: Iterator[Value | None]) -> list[Value] | AsyncIterator[Value]:
        """Answer a list: at once if it is short and cheap, else in slices of the event loop."""
        begun: list[Value | None] = []
        if not self.is_costly:
            size = 0
            for item in items:
                begun.append(item)
                size += _size_of(item)
                if len(begun) >= ITEMS_AT_ONCE or size > _BYTES_AT_ONCE:
                    break
            else:
                return [item for item in begun if item is not None]
        key = self.caller.id or self.caller.address
        return self.slices.over(itertools.chain(begun, items), key)

    def _engine_for(
        self, rules: Mapping[str, Rule], name: str, rights: Rights, arguments: Arguments
    ) -> Engine:
        if rights.is_unlimited:
            return self.engine
        caller = self.caller
        try:
            verdict = judge(rules[name], name, self.engine, rights, arguments, asker=caller.id)
        except EngineError as error:
            self._note(name, arguments, "refused", error.code.value)
            raise
        if verdict is Verdict.ALLOWED:
            return self.engine
        self.has_hidden = True
        self._note(name, arguments, "refused", "hidden")
        if self.nothing is None:
            raise RuntimeError("there is no engine to answer those who may not see")
        return self.nothing

    def _note(
        self,
        name: str,
        arguments: Arguments,
        decision: Literal["allowed", "refused"],
        reason: str | None = None,
    ) -> None:
        caller = self.caller
        if caller.audit is not NO_AUDIT:
            action = "mutate" if self.is_mutation else "query"
            caller.audit.note(caller, action, self._action(name, arguments), decision, reason=reason)

    def _action(self, name: str, arguments: Arguments) -> str:
        """Return a root field with the objects that its arguments name, as the audit log shows it."""
        rules = MUTATION_RULES if self.is_mutation else QUERY_RULES
        return f"{name}({', '.join(names_of(rules[name], self.engine, arguments))})"

    def _origin(self, name: str, arguments: Arguments) -> Origin:
        caller = self.caller
        if caller.audit is NO_AUDIT:
            return Origin(
                principal=caller.id,
                tenant=caller.tenant,
                address=caller.address,
                traceparent=CALLERS_TRACE.get(),
            )
        return Origin(
            principal=caller.id,
            tenant=caller.tenant,
            address=caller.address,
            policy=caller.policy,
            action=self._action(name, arguments),
            traceparent=CALLERS_TRACE.get(),
        )

    async def _mutate(self, name: str, arguments: Arguments, engine: Engine) -> object:
        done = await self.engine.commands.run(self._command(name, arguments, engine))
        if not isinstance(done, Committed):
            return done
        self.cursor = done.cursor
        return keep(MUTATION_RULES[name], self.caller.rights, done.value)

    async def _command(self, name: str, arguments: Arguments, engine: Engine) -> Committed[object] | Value:
        """Execute a command in the context of its caller.

        The audit line of a record is written from the record (:mod:`..access.audit_trail`); only a command
        without one, and a refusal, have their line from here.
        """
        ORIGIN.set(self._origin(name, arguments))
        try:
            done = await MUTATIONS[name](engine, arguments)
        except EngineError as error:
            self._note(name, arguments, "refused", error.code.value)
            raise
        if not isinstance(done, Committed):
            self._note(name, arguments, "allowed")
        return done


def _workflows_of(rights: Rights) -> MaySee:
    return lambda workflow_id: rights.allows("workflow", "read", workflow_id)


def _behind(items: Iterator[Value | None], last: str) -> Iterator[Value | None]:
    """Leave out the items up to one; what is left out takes its time as well.

    :raises EngineError: ``INVALID_INPUT``: there is none of that id.
    """
    for item in items:
        yield None
        if item is not None and item["id"] == last:
            yield from items
            return
    refuse(f"after: {shown(last)} is no item of this list")


def _size_of(item: Value | None) -> int:
    """Return the bytes of the texts and the JSON of a value."""
    values = () if item is None else item.values()
    return sum(len(value) for value in values if isinstance(value, (str, msgspec.Raw)))
