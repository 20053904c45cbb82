"""Encode the fields of an event's value that one selection set requests.

The selection set is compiled once per channel (:mod:`..graphql.completion`); an event that does not fit is
left to graphql-core.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import cast, final

import msgspec
from graphql import ExecutionResult, Executor, GraphQLObjectType, get_nullable_type
from graphql.execution.execute import execute_subscription_event

from circuit_breaker_sdk.errors import GraphQLError as WireError
from circuit_breaker_server.engine.events import whole
from circuit_breaker_server.graphql.errors import to_wire
from circuit_breaker_server.graphql.selection_compiler import (
    Complete,
    SelectedField,
    UnfitSelection,
    UnfitValue,
    compile_fields,
    compile_selection,
    root_fields,
)

__all__ = ["Projection"]

_ENCODER = msgspec.json.Encoder()


@final
class Projection:
    """Encode the part of each event that one channel sends: the selection set of its document, compiled.

    ``encode`` returns the payload without its closing brace, so that ``extensions`` may follow:
    ``{"data":{"resourceUpdates":{…}}``.

    :ivar head: the payload up to the event.
    :ivar compiled: false where the selection needs graphql-core for every event.
    :ivar fallbacks: how many events graphql-core encoded instead.

    Example::

        Projection(executor).encode({"id": "r1", "state": "draft"})
    """

    def __init__(self, executor: Executor[None]) -> None:
        """Compile the operation; its variables are already coerced in ``executor``.

        :raises ValueError: the operation does not have exactly one root field.
        """
        roots = root_fields(executor)
        if len(roots) != 1:
            raise ValueError("a subscription selects exactly one field")
        ((key, details),) = roots.items()
        self._executor = executor
        self._name = details[0].node.name.value
        self.head = b'{"data":{' + _ENCODER.encode(key) + b":"
        self._details = list(details)
        self._complete: Complete | None
        self.fallbacks = 0
        root = executor.schema.get_root_type(executor.operation.operation)
        field = None if root is None else root.fields.get(self._name)
        if field is None:
            raise ValueError(f"{self._name} is not a field of the schema")
        self._output = field.type
        try:
            self._complete = compile_selection(executor, field.type, self._details).complete
        except UnfitSelection:
            self._complete = None

    @property
    def compiled(self) -> bool:
        return self._complete is not None

    @functools.cached_property
    def fields(self) -> Sequence[SelectedField] | None:
        """The fields of the event that are selected; ``None`` where it is not compiled or no object."""
        output = get_nullable_type(self._output)
        if self._complete is None or not isinstance(output, GraphQLObjectType):
            return None
        return compile_fields(self._executor, output, self._details)

    def take_fallbacks(self) -> int:
        """Return :attr:`fallbacks` and count from 0 again, for the next channel of the same plan."""
        taken, self.fallbacks = self.fallbacks, 0
        return taken

    def encode(self, value: Mapping[str, object]) -> bytes:
        """Return the payload of one event, without its closing brace."""
        if self._complete is not None:
            try:
                return self.head + _ENCODER.encode(self._complete(value)) + b"}"
            except UnfitValue:
                # graphql-core words the error and propagates the null.
                pass
        self.fallbacks += 1
        return self._execute(value)

    def _execute(self, value: Mapping[str, object]) -> bytes:
        answer = execute_subscription_event(
            self._executor.build_per_event_executor({self._name: whole(value)})
        )
        # No resolver of ours is a coroutine: every value is already there.
        result = cast("ExecutionResult", answer)
        payload: dict[str, object] = {"data": result.data}
        if result.errors:
            payload["errors"] = [_error_object(to_wire(error)) for error in result.errors]
        return _ENCODER.encode(payload)[:-1]


def _error_object(error: WireError) -> dict[str, object]:
    return {name: value for name, value in msgspec.structs.asdict(error).items() if value is not None}
