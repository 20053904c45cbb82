"""From a subscription's document and variables to what is read and sent: the plan of one channel."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final, TypeAlias, cast, final

import graphql
import msgspec
from graphql import GraphQLSchema, OperationType, get_argument_values

from circuit_breaker_sdk.errors import GraphQLError
from circuit_breaker_server.gateway.projection import Projection
from circuit_breaker_server.graphql.documents import Document
from circuit_breaker_server.graphql.errors import DocumentInvalid, to_wire
from circuit_breaker_server.graphql.selection_compiler import root_fields
from circuit_breaker_server.graphql.validation import Executor
from circuit_breaker_server.storage.lru import RecentlyUsed

__all__ = ["Plan", "PlanKey", "Plans", "Refused", "make_plan"]

_KEYS: Final = msgspec.json.Encoder(order="deterministic")

PlanKey = tuple[str, str | None, bytes]
"""Document, operation name, coerced variables: what makes two subscriptions the same channel."""

_AskedFor: TypeAlias = tuple[str, str | None, bytes]
"""Document, operation name, variables as they came."""


class Refused(Exception):
    """An operation cannot be served; the socket lives on.

    :ivar errors: the errors that the peer gets.
    """

    def __init__(self, errors: Sequence[GraphQLError]) -> None:
        self.errors = tuple(errors)
        super().__init__(self.errors)


@final
class Plan:
    """One subscription's field, arguments and compiled document.

    :ivar field: the subscription field of the schema, for example ``resourceUpdates``.
    :ivar arguments: its coerced arguments, defaults filled in.
    :ivar key: equal for equal documents and variables, whatever the order of the variables was.

    Example::

        plan = make_plan(schema, document, variables={"id": "r1"})
        plan.projection().encode({"id": "r1"})
    """

    __slots__ = ("_executor", "_projections", "arguments", "field", "key")

    def __init__(
        self,
        field: str,
        arguments: Mapping[str, object],
        key: PlanKey,
        executor: Callable[[frozenset[str]], Executor],
    ) -> None:
        """``executor``: makes one that withholds fields with these scopes."""
        self.field = field
        self.arguments = arguments
        self.key = key
        self._executor = executor
        self._projections: dict[frozenset[str], Projection] = {}

    def projection(self, withheld: frozenset[str] = frozenset()) -> Projection:
        """Compile the selection set, once: each time graphql-core keeps more in the executor.

        :param withheld: scopes whose fields are withheld.
        """
        projection = self._projections.get(withheld)
        if projection is None:
            projection = self._projections[withheld] = Projection(self._executor(withheld))
        return projection


def make_plan(
    schema: GraphQLSchema,
    document: Document,
    *,
    variables: Mapping[str, object] | None = None,
    operation_name: str | None = None,
) -> Plan:
    """Coerce the variables of a validated document's subscription and name its channel.

    :raises Refused: a variable is missing, unknown to its type or of another type; or the operation is not
        a subscription of exactly one field.
    """
    try:
        operation = document.operation(operation_name)
    except DocumentInvalid as error:
        raise Refused(error.errors) from error
    if operation.operation is not OperationType.SUBSCRIPTION:
        raise Refused([GraphQLError(message="the operation is not a subscription")])

    def build(withheld: frozenset[str]) -> Executor | list[graphql.GraphQLError]:
        built = Executor.build(
            schema,
            document.ast,
            context_value=withheld,
            raw_variable_values=dict(variables or {}),
            operation_name=operation_name or None,
        )
        return cast("Executor | list[graphql.GraphQLError]", built)

    executor = build(frozenset())
    if isinstance(executor, list):
        raise Refused([to_wire(error, "INVALID_INPUT") for error in executor])
    try:
        # `skip` and `include` at the root may have left nothing, or more than one.
        roots = root_fields(executor)
        field = _only_field(schema, [group[0].node.name.value for group in roots.values()])
        node = next(iter(roots.values()))[0].node
        arguments = get_argument_values(field, node, executor.variable_values)
    except graphql.GraphQLError as error:
        raise Refused([to_wire(error)]) from error
    key = (
        document.query,
        operation.name.value if operation.name else None,
        _KEYS.encode(executor.variable_values.coerced),
    )
    whole = executor

    def executor_for(withheld: frozenset[str]) -> Executor:
        return cast("Executor", build(withheld)) if withheld else whole

    return Plan(node.name.value, arguments, key, executor_for)


def _only_field(schema: GraphQLSchema, names: Sequence[str]) -> graphql.GraphQLField:
    root = schema.subscription_type
    fields: Mapping[str, graphql.GraphQLField] = root.fields if root is not None else {}
    if len(names) != 1 or names[0] not in fields:
        shown = ", ".join(names) or "none"
        raise graphql.GraphQLError(f"a subscription selects exactly one field of the schema, not: {shown}")
    return fields[names[0]]


@final
class Plans:
    """Makes plans, and keeps those used last: what many ask for is coerced once.

    :param max_entries: how many plans are kept.
    :param max_characters: how much text their documents and variables may have together; one that is shared
        counts for each.

    Example::

        plans = Plans(documents.schema)
        plans.get(documents.get(query), variables={"id": "r1"})
    """

    def __init__(
        self, schema: GraphQLSchema, *, max_entries: int = 4096, max_characters: int = 1024 * 1024
    ) -> None:
        self._schema = schema
        self._kept: RecentlyUsed[_AskedFor, Plan] = RecentlyUsed(
            max_entries=max_entries, max_characters=max_characters
        )

    def __len__(self) -> int:
        """Tell how many plans are kept."""
        return len(self._kept)

    def get(
        self,
        document: Document,
        *,
        variables: Mapping[str, object] | None = None,
        operation_name: str | None = None,
    ) -> Plan:
        """Return the plan of a validated document's subscription.

        :raises Refused: as :func:`make_plan`.
        """
        try:
            asked_for = (document.query, operation_name, _KEYS.encode(variables or {}))
        except RecursionError:
            # Nested so deep that it could just be read: what it is refused with is worded there.
            return make_plan(self._schema, document, variables=variables, operation_name=operation_name)
        plan = self._kept.get(asked_for)
        if plan is None:
            plan = make_plan(self._schema, document, variables=variables, operation_name=operation_name)
            query, _, given = asked_for
            self._kept.put(asked_for, plan, characters=len(query) + len(given))
        return plan
