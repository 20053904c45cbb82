"""One query or mutation, from a document to the bytes of its answer."""

from __future__ import annotations

import asyncio
import functools
import inspect
import random
import warnings
from collections.abc import Awaitable, Mapping, Sequence
from types import CoroutineType
from typing import Final, TypeGuard

import graphql
import msgspec
from graphql import ExecutionResult, OperationType

from circuit_breaker_sdk.errors import GraphQLError
from circuit_breaker_server.access.caller import OPEN, Caller
from circuit_breaker_server.access.streams import withheld_from
from circuit_breaker_server.engine.cursor import Cursors
from circuit_breaker_server.engine.engine import Engine
from circuit_breaker_server.graphql.compiled_operation import CompiledOperation, compiled_operation
from circuit_breaker_server.graphql.documents import Document
from circuit_breaker_server.graphql.errors import DocumentInvalid, input_error, to_wire
from circuit_breaker_server.graphql.limit_checks import REFUSED_SECONDS, too_much_work
from circuit_breaker_server.graphql.list_lengths import how_many
from circuit_breaker_server.graphql.operation_root import Root
from circuit_breaker_server.graphql.resolvers import Answered, GivenAnswer, Judging, resolve
from circuit_breaker_server.graphql.schema import load_schema
from circuit_breaker_server.graphql.time_limit import TimeLimit
from circuit_breaker_server.graphql.validation import Executor
from circuit_breaker_server.scheduling import Slices
from circuit_breaker_server.security.rights import Rights
from circuit_breaker_server.security.work_budgets import Budgets
from circuit_breaker_server.storage.lru import RecentlyUsed

__all__ = [
    "CHEAP",
    "MAX_COST",
    "admit",
    "encode_errors",
    "encode_refusal",
    "error_value",
    "execute",
    "project",
    "run",
]

MAX_COST: Final = 100_000
_CHARGED_FOR_COUNTING: Final = 5_000
"""For an operation that could answer too much, even where there is little for the caller."""
_BLUR_SECONDS: Final = 0.002
CHEAP: Final = 1_000
"""Values of an operation that is executed at once: about 5 ms."""

_ENCODER = msgspec.json.Encoder()
_INTROSPECTED: Final[RecentlyUsed[tuple[str, str | None], bytes]] = RecentlyUsed(
    max_entries=16, max_characters=2 * 1024 * 1024
)
"""Cached answers of introspection, by document and operation: they are the same for every caller."""


# Behind an item of a list that fails, graphql-core leaves coroutines that are never awaited.
warnings.filterwarnings("ignore", r"coroutine 'Executor\.", RuntimeWarning)


async def execute(
    document: Document,
    *,
    variables: Mapping[str, object] | None,
    operation_name: str | None,
    engine: Engine,
    timeout_seconds: float = 30.0,
    caller: Caller = OPEN,
    nothing: Engine | None = None,
    cursors: Cursors | None = None,
    with_cursor: bool = True,
    slices: Slices | None = None,
    budgets: Budgets | None = None,
    max_cost: int = MAX_COST,
) -> bytes:
    """Execute a query or a mutation; return the answer as JSON: ``data``, ``errors``, ``extensions``.

    ``data`` is left out where nothing was executed (GraphQL specification, section 7.1). The answer to a
    mutation that made a record has the place after it in ``extensions.resume.cursor``, for a peer that
    negotiated resume (``with_cursor``). Refusals and
    failures are in ``errors``; nothing is raised for them. Cancelling does not take back what a mutation
    has already handed to the log.

    :param operation_name: ``None`` where the document has one operation only.
    :param caller: the caller, whose rights decide on the answer.
    :param nothing: an engine in which nothing is; needed unless the caller may do everything.
    :param slices: of the event loop, shared by all operations.
    :param budgets: of principals; what is not cheap is charged to them.
    :param max_cost: of one operation, as :meth:`.documents.Document.cost` estimates it.
    :param cursors: writes them; ``None`` writes such as people can read.
    """
    try:
        operation = document.operation(operation_name)
    except DocumentInvalid as error:
        return encode_errors(error.errors)
    if operation.operation is OperationType.SUBSCRIPTION:
        return encode_refusal("OPERATION_NOT_SUPPORTED", _WEBSOCKET_ONLY)
    is_mutation = operation.operation is OperationType.MUTATION
    cost, refusal = await admit(
        document, operation_name, variables, engine, caller, budgets=budgets, max_cost=max_cost
    )
    if refusal is not None:
        return refusal
    root = Root(
        engine,
        is_mutation=is_mutation,
        caller=caller,
        nothing=nothing,
        cursors=cursors,
        with_cursor=with_cursor,
        slices=slices,
        is_costly=cost > CHEAP,
    )
    try:
        with TimeLimit(timeout_seconds):
            return await run(
                document, variables=variables, operation_name=operation_name, root=root, cost=cost
            )
    except TimeoutError:
        text = f"not finished within {timeout_seconds:g} s"
        if root.is_mutation:
            text += "; the mutation may have happened: read before trying again"
        return encode_refusal("TIMEOUT", text)


async def admit(
    document: Document,
    operation_name: str | None,
    variables: Mapping[str, object] | None,
    engine: Engine,
    caller: Caller,
    *,
    budgets: Budgets | None,
    max_cost: int,
) -> tuple[int, bytes | None]:
    """Charge an operation to its principal; return what it costs, and the refusal where it is refused."""
    asked = cost = document.cost(operation_name, variables)
    if asked > CHEAP:
        rights = caller.rights
        most = functools.cache(lambda field, workflow_id: how_many(field, workflow_id, engine, rights))
        cost = document.cost(operation_name, variables, most)
    charged = min(cost, max_cost) if asked <= max_cost else max(min(cost, max_cost), _CHARGED_FOR_COUNTING)
    if charged > CHEAP and budgets is not None:
        wait = budgets.spend(caller.id or caller.address, charged)
        if wait is not None:
            await asyncio.sleep(min(wait, REFUSED_SECONDS))
            return charged, encode_errors([too_much_work(wait)])
    if cost > max_cost:
        return charged, encode_refusal("DOCUMENT_TOO_COMPLEX", _TOO_COSTLY.format(cost, max_cost))
    return charged, None


async def run(
    document: Document,
    *,
    variables: Mapping[str, object] | None,
    operation_name: str | None,
    root: Root,
    cost: int = 0,
) -> bytes:
    """Execute on a root what was admitted, and costs so much; return the answer as :func:`execute` does."""
    if not root.is_costly:
        answer = await _run(document, variables, operation_name, root)
    else:
        async with root.slices.room_for(cost, root.caller.id or root.caller.address):
            answer = await _run(document, variables, operation_name, root)
    if root.has_hidden:
        # To look for what exists takes some microseconds that looking for nothing does not.
        await asyncio.sleep(random.uniform(0.0, _BLUR_SECONDS))  # noqa: S311 (it need not be secret)
    return answer


async def _run(
    document: Document, variables: Mapping[str, object] | None, operation_name: str | None, root: Root
) -> bytes:
    rights = root.caller.rights
    operation = None
    if root.is_costly and document.asks_for_the_schema_alone(operation_name):
        return await _introspect(document, operation_name, root)
    if root.is_costly:
        await root.slices.take(root.caller.id or root.caller.address)
    else:
        operation = compiled_operation(document, operation_name, withheld_from(rights))
    arguments = None if operation is None else operation.arguments(variables)
    again: Root | Answered = root
    if operation is not None and arguments is not None:
        again = await _ask(operation, arguments, root)
        encoded = operation.encode(again.value)
        if encoded is not None:
            return encoded + (b"}" if root.cursor_text is None else _resume(root.cursor_text))
        # What was answered is told once more: graphql-core words what is wrong with it.
    result = _start(document, variables, operation_name, again, rights)
    if inspect.isawaitable(result):
        result = await result
    return _encode(result, root.cursor_text)


async def _introspect(document: Document, operation_name: str | None, root: Root) -> bytes:
    """Answer a question for the schema: in a thread, and seldom again."""
    asked = (document.query, operation_name)
    answer = _INTROSPECTED.get(asked)
    if answer is None:

        def answered() -> bytes:
            result = _start(document, None, operation_name, root, root.caller.rights)
            if not isinstance(result, ExecutionResult):
                raise TypeError("the schema is told at once")
            return _encode(result, None)

        answer = await root.slices.beside(answered, root.caller.id or root.caller.address)
        _INTROSPECTED.put(asked, answer, characters=len(answer))
    return answer


async def _ask(operation: CompiledOperation, arguments: dict[str, object], root: Root) -> Answered:
    try:
        value = root.field(operation.name, arguments)
        return Answered(await value if _is_coroutine(value) else value, root)
    except Exception as error:  # noqa: BLE001 (graphql-core makes an error of the answer of each)
        return Answered(error, root)


def project(
    document: Document,
    *,
    variables: Mapping[str, object] | None,
    operation_name: str | None,
    root: GivenAnswer | Judging,
    rights: Rights,
) -> bytes:
    """Return the answer to a mutation that is not executed, without ``extensions``."""
    result = _start(document, variables, operation_name, root, rights)
    if inspect.isawaitable(result):
        raise TypeError("the answer to a mutation is made at once")
    return _encode(result, None)


def _resume(cursor: str) -> bytes:
    return b',"extensions":{"resume":{"cursor":' + _ENCODER.encode(cursor) + b"}}}"


def _start(
    document: Document,
    variables: Mapping[str, object] | None,
    operation_name: str | None,
    root: Root | GivenAnswer | Judging | Answered,
    rights: Rights,
) -> Awaitable[ExecutionResult] | ExecutionResult:
    return graphql.execute(
        load_schema(),
        document.ast,
        root_value=root,
        context_value=withheld_from(rights),
        variable_values=dict(variables or {}),
        operation_name=operation_name or None,
        field_resolver=resolve,
        executor_class=Executor,
        is_awaitable=_is_coroutine,
    )


def _is_coroutine(value: object) -> TypeGuard[Awaitable[object]]:
    # Nothing else that can be awaited comes from our resolvers, and each field of each answer is asked.
    return type(value) is CoroutineType


_TOO_COSTLY = (
    "the answer may have {} values, {} are allowed: ask for fewer items at a time (first), or for "
    "fewer fields"
)
_WEBSOCKET_ONLY = (
    "a subscription needs a WebSocket: connect to this URL with ws:// or wss:// and the subprotocol "
    "graphql-transport-ws; where none comes through, post it to /graphql/poll"
)


def encode_errors(errors: Sequence[GraphQLError]) -> bytes:
    """Return the answer to an operation that was not executed."""
    return _ENCODER.encode({"errors": [error_value(error) for error in errors]})


def encode_refusal(code: str, message: str) -> bytes:
    """Return the answer to an operation that was not executed, for one reason."""
    return encode_errors([GraphQLError(message=message, extensions={"code": code})])


def _encode(result: ExecutionResult, cursor: str | None) -> bytes:
    answer: dict[str, object] = {}
    errors = result.errors or []
    if result.data is not None or any(error.path is not None for error in errors):
        answer["data"] = result.data
    if errors:
        answer["errors"] = [
            # Without a path it is about the variables.
            error_value(input_error(error, "INVALID_INPUT") if error.path is None else to_wire(error))
            for error in errors
        ]
    if cursor is not None:
        answer["extensions"] = {"resume": {"cursor": cursor}}
    return _ENCODER.encode(answer)


def error_value(error: GraphQLError) -> dict[str, object]:
    """Return an error as it is encoded: without what it does not have."""
    value: dict[str, object] = {"message": error.message}
    if error.locations:
        value["locations"] = error.locations
    if error.path is not None:
        value["path"] = error.path
    if error.extensions:
        value["extensions"] = error.extensions
    return value
