"""Compile a selection set into nested functions that make the selected fields from a whole value.

A value that is not what the schema promises (a null where none may be, a wrong type) is left to
graphql-core, which knows the errors and how nulls propagate; so the two never answer differently, and
property tests hold them together.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Final, NamedTuple, TypeAlias

import msgspec
from graphql import (
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

from circuit_breaker_server.engine.events import made
from circuit_breaker_server.graphql.schema import REDACTION, Redaction, give

__all__ = [
    "Complete",
    "Completion",
    "SelectedField",
    "UnfitSelection",
    "UnfitValue",
    "compile_fields",
    "compile_selection",
    "root_fields",
]

Complete: TypeAlias = Callable[[object], object]
"""From a value, not null, to what is encoded of it; raises :class:`UnfitValue`."""

_EXACT: Final[Mapping[str, type]] = {"String": str, "ID": str, "Boolean": bool}


class UnfitValue(Exception):
    """A value is not what the schema promises."""


class UnfitSelection(Exception):
    """A selection is not of the plain kind that can be compiled."""


class Completion(NamedTuple):
    """The compiled completion of the values at one place of a selection.

    :ivar nullable: whether null may stand there.
    :ivar exact: the type of a leaf that is encoded unchanged; ``None`` where ``complete`` must check it.
    """

    nullable: bool
    exact: type | None
    complete: Complete


class SelectedField(msgspec.Struct, frozen=True):
    """One selected field: where its value comes from and how it is completed.

    :ivar name: the value's key; ``None`` for ``__typename`` and withheld fields: the answer is ``constant``.
    :ivar exact: the type of a leaf that stands as it is; ``None`` where ``complete`` must look.
    """

    key: str
    name: str | None
    nullable: bool
    exact: type | None
    complete: Complete
    constant: str | None = None

    @property
    def is_json(self) -> bool:
        """Whether it is a leaf of any type, which goes out as it is unless it is null."""
        return self.name is not None and self.exact is None and self.complete is _as_it_is


def root_fields(executor: Executor[None]) -> Mapping[str, Sequence[FieldDetails]]:
    """Return the fields at the root of the executor's operation, by response key."""
    root = executor.schema.get_root_type(executor.operation.operation)
    if root is None:
        return {}
    collected = collect_fields(
        executor.schema, executor.fragments, executor.variable_values, root, executor.operation
    )
    return collected.grouped_field_set


def compile_selection(
    executor: Executor[None], output: GraphQLOutputType, details: list[FieldDetails]
) -> Completion:
    """Compile what is selected of a field's values.

    :param executor: of the operation; what its context says is withheld is left out.
    :param output: the field's type.
    :param details: its nodes, as :func:`root_fields` returns them.
    :raises UnfitSelection: it cannot be compiled.
    """
    nullable = True
    if is_non_null_type(output):
        nullable, output = False, output.of_type
    if is_list_type(output):
        return Completion(nullable, None, _list(*compile_selection(executor, output.of_type, details)))
    if is_enum_type(output):
        return Completion(nullable, None, _coerced(output.coerce_output_value))
    if is_scalar_type(output):
        exact = _EXACT.get(output.name)
        return Completion(nullable, exact, _as_it_is if exact else _scalar(output))
    if is_object_type(output):
        return Completion(nullable, None, _object(executor, output, details))
    if is_abstract_type(output):
        if output.resolve_type is not None:
            raise UnfitSelection
        possible = executor.schema.get_possible_types(output)
        return Completion(
            nullable, None, _abstract({t.name: _object(executor, t, details) for t in possible})
        )
    raise UnfitSelection


def _as_it_is(value: object) -> object:
    return value


def _scalar(scalar: GraphQLScalarType) -> Complete:
    if scalar.coerce_output_value in (GraphQLScalarType.serialize, give):
        return _as_it_is
    return _coerced(scalar.coerce_output_value)


def _coerced(coerce: Callable[[object], object]) -> Complete:
    def complete(value: object) -> object:
        try:
            coerced = coerce(value)
        except (GraphQLError, TypeError, ValueError) as error:
            raise UnfitValue from error
        if coerced is None:
            raise UnfitValue
        return coerced

    return complete


def _list(nullable: bool, exact: type | None, complete_item: Complete) -> Complete:
    def complete(value: object) -> object:
        if not isinstance(value, (list, tuple)):
            value = made(value)
            if not isinstance(value, (list, tuple)):
                raise UnfitValue
        completed: list[object] = []
        for item in value:
            if item is None:
                if not nullable:
                    raise UnfitValue
                completed.append(None)
            elif exact is None:
                completed.append(complete_item(item))
            elif type(item) is exact:
                completed.append(item)
            else:
                raise UnfitValue
        return completed

    return complete


def _abstract(by_name: Mapping[str, Complete]) -> Complete:
    def complete(value: object) -> object:
        name = value.get("__typename") if isinstance(value, dict) else None
        complete_object = by_name.get(name) if isinstance(name, str) else None
        if complete_object is None:
            raise UnfitValue
        return complete_object(value)

    return complete


def _object(executor: Executor[None], type_: GraphQLObjectType, details: list[FieldDetails]) -> Complete:
    fields = compile_fields(executor, type_, details)
    return _leaves(fields) if all(_is_leaf(field) for field in fields) else _branches(fields)


def compile_fields(
    executor: Executor[None], type_: GraphQLObjectType, details: list[FieldDetails]
) -> tuple[SelectedField, ...]:
    """Compile what is selected of an object's type, field by field, as :func:`compile_selection` does.

    :raises UnfitSelection: it cannot be compiled.
    """
    if type_.is_type_of is not None:
        raise UnfitSelection
    collected: CollectedFields = executor.collect_subfields(type_, details)
    if collected.new_defer_usages:
        raise UnfitSelection
    return tuple(_field(executor, type_, key, group) for key, group in collected.grouped_field_set.items())


def _leaves(fields: Sequence[SelectedField]) -> Complete:
    """Check an object of which only leaves are selected: msgspec looks at all of them in one call."""
    leaves = _struct(tuple((field.key, field.exact or object, field.nullable) for field in fields))
    # As JSON they may be null, which their type does not tell.
    present = [field.key for field in fields if field.exact is None and not field.nullable]

    def complete(value: object) -> object:
        if not isinstance(value, dict):
            value = made(value)
            if not isinstance(value, dict):
                raise UnfitValue
        try:
            found = msgspec.convert(value, leaves)
        except msgspec.ValidationError as error:
            raise UnfitValue from error
        for key in present:
            if value.get(key) is None:
                raise UnfitValue
        return found

    return complete


def _branches(fields: Sequence[SelectedField]) -> Complete:
    def complete(value: object) -> object:
        if not isinstance(value, dict):
            value = made(value)
            if not isinstance(value, dict):
                raise UnfitValue
        get = value.get
        completed: dict[str, object] = {}
        for field in fields:
            if field.name is None:
                completed[field.key] = field.constant
                continue
            item = get(field.name)
            if item is None:
                if not field.nullable:
                    raise UnfitValue
                completed[field.key] = None
            elif field.exact is None:
                completed[field.key] = field.complete(item)
            elif type(item) is field.exact:
                completed[field.key] = item
            else:
                raise UnfitValue
        return completed

    return complete


def _is_leaf(field: SelectedField) -> bool:
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
) -> SelectedField:
    node = group[0].node
    name = node.name.value
    if name == "__typename":
        return SelectedField(key, None, False, None, _as_it_is, parent.name)
    definition = parent.fields.get(name)
    redaction = None if definition is None else definition.extensions.get(REDACTION)
    if isinstance(redaction, Redaction) and redaction.withholds(executor.context_value):
        return SelectedField(key, None, True, None, _as_it_is, redaction.instead)
    if isinstance(redaction, Redaction) and definition is not None and not definition.args:
        nullable, exact, complete = compile_selection(executor, definition.type, group)
        return SelectedField(key, name, nullable, exact, complete)
    if definition is None or definition.resolve is not None or definition.args or node.arguments:
        raise UnfitSelection
    nullable, exact, complete = compile_selection(executor, definition.type, group)
    return SelectedField(key, name, nullable, exact, complete)
