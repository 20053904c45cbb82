"""From the fields of a document to the engine's answers."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
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
from circuit_breaker_server.graphql.roots import agents, analytics, llm, mcp, nats, rules, workflows
from circuit_breaker_server.graphql.roots.arguments import Arguments, List, MaySee, Mutation, Query
from circuit_breaker_server.scheduling import Slices
from circuit_breaker_server.security.rights import EVERYTHING, Rights
from circuit_breaker_server.security.scopes import Kind

__all__ = [
    "LISTS",
    "MAX_ANSWER_BYTES",
    "MUTATIONS",
    "QUERIES",
    "Answered",
    "Judging",
    "Root",
    "Told",
    "how_many",
    "resolve",
]


MAX_ANSWER_BYTES: Final = 8 * 1024 * 1024
"""Of the texts and JSON in one answer; a list ends with an error behind it."""
MAX_ANSWER_VALUES: Final = 100_000
"""Of lists without pages in one answer, as histories; a list with pages ends with an error after them."""
_AT_ONCE: Final = 64
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
                if len(begun) >= _AT_ONCE or size > _BYTES_AT_ONCE:
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
            return Origin(principal=caller.id, tenant=caller.tenant, address=caller.address)
        return Origin(
            principal=caller.id,
            tenant=caller.tenant,
            address=caller.address,
            policy=caller.policy,
            action=self._action(name, arguments),
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


@final
class Told:
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
    :ivar root: who answered it.
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
                return root.in_slices(iter(value)) if len(value) > _AT_ONCE else value
            if isinstance(value, (str, msgspec.Raw)):
                root.bytes_left -= len(value)
        return value
    if isinstance(source, (Root, Told, Judging, Answered)):
        return source.field(info.field_name, arguments)
    raise TypeError(f"{info.parent_type}.{info.field_name} is selected of {type(source).__name__}")


_DOMAINS = (workflows, rules, nats, agents, llm, analytics, mcp)

PAGES: Final = mcp.PAGES

LISTS: Final[Mapping[str, List]] = {
    name: items for domain in (workflows, rules, nats, agents, llm) for name, items in domain.LISTS.items()
}
"""The lists that take ``first`` and ``after``."""


def _size_of(item: Value | None) -> int:
    """Return the bytes of the texts and the JSON of a value."""
    values = () if item is None else item.values()
    return sum(len(value) for value in values if isinstance(value, (str, msgspec.Raw)))


def how_many(field: str, workflow_id: str | None, engine: Engine, rights: Rights) -> int:
    """Tell how many items of a list there are at most for who has these rights; a page of them counts."""
    ids: Iterable[str]
    match field:
        case "resources" | "resourcesInState" if workflow_id is not None:
            is_seen = rights.allows("workflow", "read", workflow_id)
            return min(PAGE_ITEMS, engine.workflows.count_resources(workflow_id)) if is_seen else 0
        case "workflows":
            ids = _seen(engine.workflows.workflow_ids(), "workflow", rights)
        case "resources" | "resourcesInState":
            seen = _seen(engine.workflows.workflow_ids(), "workflow", rights)
            return min(PAGE_ITEMS, sum(map(engine.workflows.count_resources, seen)))
        case "rules":
            ids = _seen(engine.rules.ids(), "rule", rights)
        case "agents":
            ids = _seen(engine.agents.ids(), "agent", rights)
        case "llmProviders":
            return engine.llm.count()
        case "stateAgentConfigs":
            return min(PAGE_ITEMS, engine.agents.count_configs())
        case "resourceExecutions":
            return min(PAGE_ITEMS, engine.agents.count_executions())
        case _:
            raise ValueError(f"nobody knows how long the list {field} is")
    return sum(1 for _ in itertools.islice(ids, PAGE_ITEMS))


def _seen(ids: Iterable[str], kind: Kind, rights: Rights) -> Iterable[str]:
    return (
        ids if rights.allows_all(kind, "read") else (id_ for id_ in ids if rights.allows(kind, "read", id_))
    )


QUERIES: Mapping[str, Query] = {
    "health": lambda _engine, _given: "ok",
    **{name: query for domain in _DOMAINS for name, query in domain.QUERIES.items()},
}

MUTATIONS: Mapping[str, Mutation] = {
    name: mutation for domain in _DOMAINS for name, mutation in domain.MUTATIONS.items()
}
