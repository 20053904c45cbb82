"""From the fields of a document to the engine's answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, Literal, final

from graphql import GraphQLResolveInfo

from circuit_breaker_server.access.auditing import NO_AUDIT
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
from circuit_breaker_server.access.pages import opened, sealed
from circuit_breaker_server.engine.command import Committed, Value
from circuit_breaker_server.engine.cursor import Cursor, Cursors
from circuit_breaker_server.engine.engine import Engine
from circuit_breaker_server.engine.errors import EngineError, ErrorCode
from circuit_breaker_server.engine.origin import ORIGIN, Origin
from circuit_breaker_server.graphql.roots import agents, analytics, llm, mcp, nats, rules, workflows
from circuit_breaker_server.graphql.roots.arguments import Arguments, Mutation, Query
from circuit_breaker_server.security.rights import EVERYTHING, Rights

__all__ = ["MUTATIONS", "QUERIES", "Answered", "Judging", "Root", "Told", "resolve"]


@final
class Root:
    """The value at the root of one operation.

    :ivar caller: who asks: by his rights a field is answered, refused, or answered as if nothing were there.
    :ivar cursors: writes them.
    :ivar cursor: of the last record that a mutation of the operation made; ``None`` before.
    """

    __slots__ = ("caller", "cursor", "cursors", "engine", "is_mutation", "nothing", "with_cursor")

    def __init__(
        self,
        engine: Engine,
        *,
        is_mutation: bool,
        caller: Caller = OPEN,
        nothing: Engine | None = None,
        cursors: Cursors | None = None,
        with_cursor: bool = True,
    ) -> None:
        """``nothing``: an engine in which nothing is; needed unless the caller may do everything.

        ``with_cursor``: whether the answer has the cursor of the mutation's record.
        """
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
        if rights.is_unlimited:
            return QUERIES[name](self.engine, arguments)
        engine = self._engine_for(QUERY_RULES, name, rights, arguments)
        answer = QUERIES[name](engine, arguments)
        return answer if engine is not self.engine else keep(rule, rights, answer)

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
    :param rights: of who asks: what he may not read is left out.
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
    """

    __slots__ = ("value",)

    def __init__(self, value: object) -> None:
        self.value = value

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
        return value() if callable(value) else value
    if isinstance(source, (Root, Told, Judging, Answered)):
        return source.field(info.field_name, arguments)
    raise TypeError(f"{info.parent_type}.{info.field_name} is selected of {type(source).__name__}")


_DOMAINS = (workflows, rules, nats, agents, llm, analytics, mcp)

PAGES: Final = mcp.PAGES

QUERIES: Mapping[str, Query] = {
    "health": lambda _engine, _given: "ok",
    **{name: query for domain in _DOMAINS for name, query in domain.QUERIES.items()},
}

MUTATIONS: Mapping[str, Mutation] = {
    name: mutation for domain in _DOMAINS for name, mutation in domain.MUTATIONS.items()
}
