"""Execute a mutation with an ``Idempotency-Key`` once, also if it is sent again after a lost answer.

The answer is kept in the record that is the effect (:mod:`..engine.idempotency`), so it is there also when
the server was killed between the record and the answer. The names follow the IETF's draft of the header.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import Iterator, Mapping
from typing import Final, final

import graphql
import msgspec
from graphql import (
    BooleanValueNode,
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    InlineFragmentNode,
    OperationDefinitionNode,
    SelectionNode,
    VariableNode,
)

from circuit_breaker_server.access.caller import OPEN, Caller
from circuit_breaker_server.access.streams import withheld_from
from circuit_breaker_server.engine.cursor import Cursors
from circuit_breaker_server.engine.engine import Engine
from circuit_breaker_server.engine.idempotency import CLAIM, MAX_ANSWER_BYTES, Claim, Kept, Withheld
from circuit_breaker_server.graphql.documents import Document
from circuit_breaker_server.graphql.execute import CHEAP, MAX_COST, admit, encode_refusal, project, run
from circuit_breaker_server.graphql.operation_root import Root
from circuit_breaker_server.graphql.resolvers import GivenAnswer, Judging
from circuit_breaker_server.logs import get_logger
from circuit_breaker_server.scheduling import Slices
from circuit_breaker_server.security.work_budgets import Budgets

__all__ = ["Done", "Once"]

_KEY: Final = re.compile(r"[\x21-\x7e]{1,128}")

_SORTED: Final = msgspec.json.Encoder(order="deterministic")

_log = get_logger("graphql")


@final
class Done(msgspec.Struct, frozen=True):
    """The outcome of a mutation with an idempotency key.

    :ivar answer: JSON.
    :ivar is_replayed: the mutation was answered before, or another request with the key was executing it.
    :ivar status: the HTTP status where the key itself was refused; else ``None``.
    """

    answer: bytes
    is_replayed: bool = False
    status: int | None = None


def _refused(status: int, code: str, message: str) -> Done:
    return Done(encode_refusal(code, message), status=status)


@final
class _Running(msgspec.Struct):
    request_hash: str
    task: asyncio.Task[Done]


@final
class Once:
    """Executes mutations under keys.

    A mutation runs in a task of its own, which neither the time limit nor the caller's end stops: a
    repeated request waits for it.

    :param timeout_seconds: how long a caller waits.
    :param nothing: an engine in which nothing is, for callers that may not do everything.

    Example::

        done = await once.execute(document, {"input": {...}}, None, key="8e03978e-40d5")
    """

    def __init__(
        self,
        engine: Engine,
        *,
        timeout_seconds: float,
        nothing: Engine | None = None,
        cursors: Cursors | None = None,
        slices: Slices | None = None,
        budgets: Budgets | None = None,
        max_cost: int = MAX_COST,
    ) -> None:
        """``slices``, ``budgets`` and ``max_cost`` are those of :func:`.execute.execute`."""
        self._slices = slices
        self._budgets = budgets
        self.max_cost = max_cost
        self._cursors = cursors or Cursors(engine.epoch)
        self._engine = engine
        self._nothing = nothing
        self._timeout_seconds = timeout_seconds
        self._running: dict[tuple[str, str], _Running] = {}

    async def aclose(self) -> None:
        """Stop what still runs; what it has handed to the log is covered by its key. Idempotent."""
        tasks = [each.task for each in self._running.values()]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    async def execute(
        self,
        document: Document,
        variables: Mapping[str, object] | None,
        operation_name: str | None,
        *,
        key: str,
        caller: Caller = OPEN,
        with_cursor: bool = True,
    ) -> Done:
        """Execute a mutation, unless it was executed under this key before.

        :param caller: the principal; the same for all where there is no authentication.
        :param with_cursor: whether the answer has the cursor of the mutation's record.
        """
        principal = caller.principal.id
        if not _KEY.fullmatch(key):
            return _refused(400, "IDEMPOTENCY_KEY_INVALID", _NO_KEY)
        operation = document.operation(operation_name)
        names = _root_fields(document, operation, variables or {})
        if len(names) > 1:
            return _refused(
                400,
                "IDEMPOTENCY_KEY_INVALID",
                f"one key is for one mutation, this operation has {len(names)}; nothing was executed",
            )
        request_hash = _hash(document, operation, variables)
        running = self._running.get((principal, key))
        # No await from here to the task's start: no other request comes in between.
        if running is not None:
            if running.request_hash != request_hash:
                return _REUSED
            done = await self._wait(running.task)
            return msgspec.structs.replace(done, is_replayed=running.task.done())
        kept = self._engine.idempotency.find(principal, key, now=self._engine.now())
        if kept is not None:
            # An answer is told again only to whom it would be given now.
            refused = self._judged_again(document, variables, operation_name, caller)
            return self._again(kept, request_hash, caller, with_cursor) if refused is None else Done(refused)
        claim = Claim(
            principal=principal,
            key=key,
            request_hash=request_hash,
            encode=lambda answers: project(
                document,
                variables=variables,
                operation_name=operation_name,
                root=GivenAnswer(answers, caller.rights),
                rights=caller.rights,
            ),
        )
        task = asyncio.get_running_loop().create_task(
            self._run(claim, document, variables, operation_name, caller, with_cursor=with_cursor),
            name="graphql-once",
        )
        self._running[principal, key] = _Running(request_hash, task)
        task.add_done_callback(lambda task: self._ended((principal, key), task))
        return await self._wait(task)

    def _judged_again(
        self,
        document: Document,
        variables: Mapping[str, object] | None,
        operation_name: str | None,
        caller: Caller,
    ) -> bytes | None:
        """Return the refusal of a mutation that was executed before, ``None`` if it would be allowed now."""
        if caller.rights.is_unlimited:
            return None
        judging = Judging(self._engine, caller)
        answer = project(
            document, variables=variables, operation_name=operation_name, root=judging, rights=caller.rights
        )
        return None if judging.is_allowed else answer

    async def _wait(self, task: asyncio.Task[Done]) -> Done:
        await asyncio.wait((task,), timeout=self._timeout_seconds)
        if not task.done():
            text = f"not finished within {self._timeout_seconds:g} s; send it again with the same key"
            return Done(encode_refusal("TIMEOUT", text))
        if task.cancelled():
            text = "the server is stopping; send it again with the same key"
            return Done(encode_refusal("UNAVAILABLE", text))
        return task.result()

    async def _run(
        self,
        claim: Claim,
        document: Document,
        variables: Mapping[str, object] | None,
        operation_name: str | None,
        caller: Caller,
        *,
        with_cursor: bool,
    ) -> Done:
        CLAIM.set(claim)
        cost, refusal = await admit(
            document,
            operation_name,
            variables,
            self._engine,
            caller,
            budgets=self._budgets,
            max_cost=self.max_cost,
        )
        if refusal is not None:
            claim.release()
            return Done(refusal)
        root = Root(
            self._engine,
            is_mutation=True,
            caller=caller,
            nothing=self._nothing,
            cursors=self._cursors,
            with_cursor=with_cursor,
            slices=self._slices,
            is_costly=cost > CHEAP,
        )
        answer = await run(document, variables=variables, operation_name=operation_name, root=root, cost=cost)
        # From the record, as for a repeated request: the same bytes.
        own = claim.answer(self._cursors, with_cursor=with_cursor)
        claim.release()
        if claim.is_taken:
            kept = self._engine.idempotency.find(claim.principal, claim.key, now=self._engine.now())
            if kept is not None:
                return self._again(kept, claim.request_hash, caller, with_cursor)
        return Done(own or answer)

    def _ended(self, place: tuple[str, str], task: asyncio.Task[Done]) -> None:
        del self._running[place]
        if not task.cancelled() and task.exception() is not None:
            _log.error("mutation_failed", exc_info=task.exception())

    def _again(self, kept: Kept, request_hash: str, caller: Caller, with_cursor: bool) -> Done:
        if kept.hash != request_hash:
            return _REUSED
        if kept.mark and withheld_from(caller.rights):
            # It was written for a caller that might see numbers of the log.
            text = "the mutation happened; its answer has what needs the scope log:read:sequence by now"
            return Done(encode_refusal("FORBIDDEN", text))
        match kept.withheld:
            case None:
                return Done(kept.whole(self._cursors, with_cursor=with_cursor), is_replayed=True)
            case Withheld.TOO_LARGE:
                text = f"the mutation happened; its answer had over {MAX_ANSWER_BYTES} bytes and was not kept"
                return _refused(409, "IDEMPOTENCY_ANSWER_TOO_LARGE", text)
            case Withheld.SECRET:
                text = "the mutation happened; its answer holds a secret and was not kept: begin anew"
                return _refused(409, "IDEMPOTENCY_ANSWER_SECRET", text)
            case _:
                text = "the mutation has begun, and has no answer yet or was interrupted; it is not run again"
                return _refused(409, "CONFLICT", text)


_NO_KEY: Final = "Idempotency-Key must be 1 to 128 visible ASCII characters; nothing was executed"
_REUSED: Final = _refused(
    422,
    "IDEMPOTENCY_KEY_REUSED",
    "this Idempotency-Key was used for another request; nothing was executed",
)


def _hash(
    document: Document, operation: OperationDefinitionNode, variables: Mapping[str, object] | None
) -> str:
    """Return what tells requests apart: query, operation and variables; blanks do not count."""
    request = (
        graphql.strip_ignored_characters(document.query),
        None if operation.name is None else operation.name.value,
        variables or {},
    )
    return hashlib.sha256(_SORTED.encode(request)).hexdigest()


def _root_fields(
    document: Document, operation: OperationDefinitionNode, variables: Mapping[str, object]
) -> set[str]:
    """Return the names under which a mutation's root fields would be answered."""
    fragments = {
        node.name.value: node for node in document.ast.definitions if isinstance(node, FragmentDefinitionNode)
    }
    given: dict[str, object] = {
        each.variable.name.value: each.default_value.value
        for each in operation.variable_definitions or ()
        if isinstance(each.default_value, BooleanValueNode)
    }
    given.update(variables)

    visited: set[str] = set()  # without it, fragments in fragments could take time without end

    def walk(selections: tuple[SelectionNode, ...]) -> Iterator[str]:
        for node in selections:
            if not _is_included(node, given):
                continue
            if isinstance(node, FieldNode):
                if not node.name.value.startswith("__"):
                    yield (node.alias or node.name).value
            elif isinstance(node, InlineFragmentNode):
                yield from walk(node.selection_set.selections)
            elif isinstance(node, FragmentSpreadNode) and node.name.value not in visited:
                visited.add(node.name.value)
                yield from walk(fragments[node.name.value].selection_set.selections)

    return set(walk(operation.selection_set.selections))


def _is_included(node: SelectionNode, variables: Mapping[str, object]) -> bool:
    for directive in node.directives or ():
        if directive.name.value not in ("skip", "include"):
            continue
        for argument in directive.arguments or ():
            value: object = None
            if isinstance(argument.value, BooleanValueNode):
                value = argument.value.value
            elif isinstance(argument.value, VariableNode):
                value = variables.get(argument.value.name.value)
            if value is (directive.name.value == "skip"):
                return False
    return True
