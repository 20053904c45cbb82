"""From an event's whole value to the bytes that one selection set asks for.

The selection set is compiled once per channel into a few nested functions. A value that is not what the
schema promises (a null where none may be, a wrong type) is left to graphql-core, which knows the errors
and how nulls propagate; so the two never answer differently, and a property test holds them together.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Final, TypeAlias, cast, final

import msgspec
from graphql import (
    ExecutionResult,
    Executor,
    GraphQLError,
    GraphQLObjectType,
    GraphQLOutputType,
    GraphQLScalarType,
    is_abstract_type,
    is_enum_type,
    is_list_type,
    is_non_null_type,
    is_object_type,
    is_scalar_type,
)
from graphql.execution.collect_fields import CollectedFields, FieldDetails, collect_fields
from graphql.execution.execute import execute_subscription_event

from circuit_breaker_sdk.errors import GraphQLError as WireError
from circuit_breaker_server.engine.events import made, whole
from circuit_breaker_server.graphql.errors import to_wire
from circuit_breaker_server.graphql.schema import REDACTION, Redaction, give

__all__ = ["Projection", "root_fields"]

_Complete: TypeAlias = Callable[[object], object]

_ENCODER = msgspec.json.Encoder()
_EXACT: Final[Mapping[str, type]] = {"String": str, "ID": str, "Boolean": bool}


class _UnfitValue(Exception):
    """A value is not what the schema promises."""


class _UnfitSelection(Exception):
    """A selection is not of the plain kind that can be compiled."""


class _Field(msgspec.Struct, frozen=True):
    """One selected field: where its value comes from and how it is completed.

    :ivar name: the value's key; ``None`` for ``__typename`` and what is withheld: the answer is ``constant``.
    :ivar exact: the type of a leaf that stands as it is; ``None`` where ``complete`` must look.
    """

    key: str
    name: str | None
    nullable: bool
    exact: type | None
    complete: _Complete
    constant: str | None = None


def root_fields(executor: Executor[None]) -> Mapping[str, Sequence[FieldDetails]]:
    """Return the fields at the root of the executor's operation, by response key."""
    root = executor.schema.get_root_type(executor.operation.operation)
    if root is None:
        return {}
    collected = collect_fields(
        executor.schema, executor.fragments, executor.variable_values, root, executor.operation
    )
    return collected.grouped_field_set


@final
class Projection:
    """What one channel sends of each event: the selection set of its document, compiled.

    ``encode`` returns the payload without its closing brace, so that ``extensions`` may follow:
    ``{"data":{"resourceUpdates":{…}}``.

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
        self._head = b'{"data":{' + _ENCODER.encode(key) + b":"
        self._complete: _Complete | None
        self.fallbacks = 0
        root = executor.schema.get_root_type(executor.operation.operation)
        field = None if root is None else root.fields.get(self._name)
        if field is None:
            raise ValueError(f"{self._name} is not a field of the schema")
        try:
            _nullable, _exact, self._complete = _compile(executor, field.type, list(details))
        except _UnfitSelection:
            self._complete = None

    @property
    def compiled(self) -> bool:
        return self._complete is not None

    def take_fallbacks(self) -> int:
        """Return :attr:`fallbacks` and count from 0 again, for the next channel of the same plan."""
        taken, self.fallbacks = self.fallbacks, 0
        return taken

    def encode(self, value: Mapping[str, object]) -> bytes:
        """Return the payload of one event, without its closing brace."""
        if self._complete is not None:
            try:
                return self._head + _ENCODER.encode(self._complete(value)) + b"}"
            except _UnfitValue:
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


def _compile(
    executor: Executor[None], output: GraphQLOutputType, details: list[FieldDetails]
) -> tuple[bool, type | None, _Complete]:
    """Return whether null may stand here, the exact type if that is all to check, and the completion."""
    nullable = True
    if is_non_null_type(output):
        nullable, output = False, output.of_type
    if is_list_type(output):
        return nullable, None, _list(*_compile(executor, output.of_type, details))
    if is_enum_type(output):
        return nullable, None, _coerced(output.coerce_output_value)
    if is_scalar_type(output):
        exact = _EXACT.get(output.name)
        return nullable, exact, _as_it_is if exact else _scalar(output)
    if is_object_type(output):
        return nullable, None, _object(executor, output, details)
    if is_abstract_type(output):
        if output.resolve_type is not None:
            raise _UnfitSelection
        possible = executor.schema.get_possible_types(output)
        return nullable, None, _abstract({t.name: _object(executor, t, details) for t in possible})
    raise _UnfitSelection


def _as_it_is(value: object) -> object:
    return value


def _scalar(scalar: GraphQLScalarType) -> _Complete:
    if scalar.coerce_output_value in (GraphQLScalarType.serialize, give):
        return _as_it_is
    return _coerced(scalar.coerce_output_value)


def _coerced(coerce: Callable[[object], object]) -> _Complete:
    def complete(value: object) -> object:
        try:
            coerced = coerce(value)
        except (GraphQLError, TypeError, ValueError) as error:
            raise _UnfitValue from error
        if coerced is None:
            raise _UnfitValue
        return coerced

    return complete


def _list(nullable: bool, exact: type | None, complete_item: _Complete) -> _Complete:
    def complete(value: object) -> object:
        if not isinstance(value, (list, tuple)):
            value = made(value)
            if not isinstance(value, (list, tuple)):
                raise _UnfitValue
        completed: list[object] = []
        for item in value:
            if item is None:
                if not nullable:
                    raise _UnfitValue
                completed.append(None)
            elif exact is None:
                completed.append(complete_item(item))
            elif type(item) is exact:
                completed.append(item)
            else:
                raise _UnfitValue
        return completed

    return complete


def _abstract(by_name: Mapping[str, _Complete]) -> _Complete:
    def complete(value: object) -> object:
        name = value.get("__typename") if isinstance(value, dict) else None
        complete_object = by_name.get(name) if isinstance(name, str) else None
        if complete_object is None:
            raise _UnfitValue
        return complete_object(value)

    return complete


def _object(executor: Executor[None], type_: GraphQLObjectType, details: list[FieldDetails]) -> _Complete:
    if type_.is_type_of is not None:
        raise _UnfitSelection
    collected: CollectedFields = executor.collect_subfields(type_, details)
    if collected.new_defer_usages:
        raise _UnfitSelection
    fields = tuple(_field(executor, type_, key, group) for key, group in collected.grouped_field_set.items())
    return _leaves(fields) if all(_is_leaf(field) for field in fields) else _branches(fields)


def _leaves(fields: Sequence[_Field]) -> _Complete:
    """Check an object of which only leaves are selected: msgspec looks at all of them in one call."""
    leaves = _struct(tuple((field.key, field.exact or object, field.nullable) for field in fields))
    # As JSON they may be null, which their type does not tell.
    present = [field.key for field in fields if field.exact is None and not field.nullable]

    def complete(value: object) -> object:
        if not isinstance(value, dict):
            value = made(value)
            if not isinstance(value, dict):
                raise _UnfitValue
        try:
            found = msgspec.convert(value, leaves)
        except msgspec.ValidationError as error:
            raise _UnfitValue from error
        for key in present:
            if value.get(key) is None:
                raise _UnfitValue
        return found

    return complete


def _branches(fields: Sequence[_Field]) -> _Complete:
    def complete(value: object) -> object:
        if not isinstance(value, dict):
            value = made(value)
            if not isinstance(value, dict):
                raise _UnfitValue
        get = value.get
        completed: dict[str, object] = {}
        for field in fields:
            if field.name is None:
                completed[field.key] = field.constant
                continue
            item = get(field.name)
            if item is None:
                if not field.nullable:
                    raise _UnfitValue
                completed[field.key] = None
            elif field.exact is None:
                completed[field.key] = field.complete(item)
            elif type(item) is field.exact:
                completed[field.key] = item
            else:
                raise _UnfitValue
        return completed

    return complete


def _is_leaf(field: _Field) -> bool:
    """Tell whether a field goes out as it is, under its own name, if its type fits."""
    return field.key == field.name and (field.exact is not None or field.complete is _as_it_is)


@functools.lru_cache(maxsize=256)
def _struct(fields: tuple[tuple[str, type, bool], ...]) -> type[msgspec.Struct]:
    # Names of no meaning: a field of the schema may be called as a method of the struct.
    names = [f"field_{place}" for place in range(len(fields))]
    keys = {name: key for name, (key, _, _) in zip(names, fields, strict=True)}
    # What has to be there comes before what may be missing, but for keyword-only fields.
    typed = [
        (name, type_ | None, None) if nullable else (name, type_)
        for name, (_, type_, nullable) in zip(names, fields, strict=True)
    ]
    return msgspec.defstruct("Leaves", typed, rename=keys, kw_only=True, gc=False)


def _field(
    executor: Executor[None], parent: GraphQLObjectType, key: str, group: list[FieldDetails]
) -> _Field:
    node = group[0].node
    name = node.name.value
    if name == "__typename":
        return _Field(key, None, False, None, _as_it_is, parent.name)
    definition = parent.fields.get(name)
    redaction = None if definition is None else definition.extensions.get(REDACTION)
    if isinstance(redaction, Redaction) and redaction.withholds(executor.context_value):
        return _Field(key, None, True, None, _as_it_is, redaction.instead)
    if isinstance(redaction, Redaction) and definition is not None and not definition.args:
        nullable, exact, complete = _compile(executor, definition.type, group)
        return _Field(key, name, nullable, exact, complete)
    if definition is None or definition.resolve is not None or definition.args or node.arguments:
        raise _UnfitSelection
    nullable, exact, complete = _compile(executor, definition.type, group)
    return _Field(key, name, nullable, exact, complete)


def _error_object(error: WireError) -> dict[str, object]:
    return {name: value for name, value in msgspec.structs.asdict(error).items() if value is not None}
