"""Compile the input of an operation: a function that coerces its variables, and gives the field's arguments.

graphql-core finds out anew for each request what types the variables have. What is compiled takes the values
that fit exactly; graphql-core coerces and refuses the others, so that both answer alike.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Final, TypeAlias, final

from graphql import (
    FieldNode,
    GraphQLArgument,
    GraphQLEnumType,
    GraphQLField,
    GraphQLInputField,
    GraphQLInputObjectType,
    GraphQLList,
    GraphQLNonNull,
    GraphQLScalarType,
    GraphQLSchema,
    GraphQLType,
    Undefined,
    VariableDefinitionNode,
    VariableNode,
    is_required_argument,
    is_required_input_field,
    type_from_ast,
)
from graphql.utilities.coerce_input_value import coerce_default_value, coerce_input_literal

__all__ = ["CoerceInput", "UnfitInput", "compile_input"]

Coerce: TypeAlias = Callable[[object], object]

CoerceInput: TypeAlias = Callable[[Mapping[str, object]], dict[str, object]]
"""Makes the arguments of the values given for the variables."""

_SINGLE: Final = frozenset({str, int, float, bool, dict})
"""JSON values that stand for a list of one."""


@final
class UnfitInput(Exception):
    """A type, or a value, that is for graphql-core."""


def compile_input(
    schema: GraphQLSchema,
    definitions: Collection[VariableDefinitionNode],
    field: GraphQLField,
    node: FieldNode,
) -> CoerceInput:
    """Compile the variables of an operation and the arguments of its only field.

    What is returned raises anything at all for values that graphql-core is to coerce, or to refuse.

    :raises UnfitInput: an argument is not just a variable, or a type is not of those that are compiled.
    """
    variables = tuple(_variable(schema, definition) for definition in definitions)
    arguments = _arguments(field, node)

    def coerce_input(given: Mapping[str, object]) -> dict[str, object]:
        coerced: dict[str, object] = {}
        for name, coerce, default, is_required in variables:
            if name in given:
                coerced[name] = coerce(given[name])
            elif default is not Undefined:
                coerced[name] = default
            elif is_required:
                raise UnfitInput
        values: dict[str, object] = {}
        for out_name, variable, default, is_non_null, is_required in arguments:
            if variable in coerced:
                value = coerced[variable]
                if value is None and is_non_null:
                    raise UnfitInput
                values[out_name] = value
            elif is_required:
                raise UnfitInput
            elif default is not Undefined:
                values[out_name] = default
        return values

    return coerce_input


def _variable(schema: GraphQLSchema, definition: VariableDefinitionNode) -> tuple[str, Coerce, object, bool]:
    type_ = type_from_ast(schema, definition.type)
    default: object = Undefined
    if definition.default_value is not None:
        default = coerce_input_literal(definition.default_value, type_)  # type: ignore[arg-type]
        if default is Undefined or isinstance(default, (dict, list)):
            raise UnfitInput  # it would be shared by all requests
    return definition.variable.name.value, _compile(type_), default, isinstance(type_, GraphQLNonNull)


def _arguments(
    field: GraphQLField, node: FieldNode
) -> tuple[tuple[str, str | None, object, bool, bool], ...]:
    """Return of each argument its name for resolvers, its variable, default, and what the type asks for."""
    given = {argument.name.value: argument.value for argument in node.arguments or ()}
    arguments = []
    for name, argument in field.args.items():
        value = given.get(name)
        if value is not None and not isinstance(value, VariableNode):
            raise UnfitInput
        arguments.append(
            (
                argument.out_name or name,
                None if value is None else value.name.value,
                _default(argument),
                isinstance(argument.type, GraphQLNonNull),
                is_required_argument(argument),
            )
        )
    return tuple(arguments)


def _default(declared: GraphQLArgument | GraphQLInputField) -> object:
    try:
        return coerce_default_value(declared)
    except TypeError as error:
        raise UnfitInput from error


def _compile(type_: object, within: tuple[GraphQLType, ...] = ()) -> Coerce:
    """Return the function that coerces values of a type.

    :param within: the input objects around it: one that holds itself has values nested as deeply as it likes.
    """
    match type_:
        case GraphQLNonNull():
            return _not_null(_compile(type_.of_type, within))
        case GraphQLList():
            return _list_of(_compile(type_.of_type, within))
        case GraphQLScalarType() | GraphQLEnumType():
            return _leaf(type_)
        case GraphQLInputObjectType():
            if type_.is_one_of or type_ in within or type_.out_type is not GraphQLInputObjectType.out_type:
                raise UnfitInput
            return _input_object(type_, (*within, type_))
        case _:
            raise UnfitInput


def _not_null(coerce: Coerce) -> Coerce:
    def coerce_not_null(value: object) -> object:
        if value is None:
            raise UnfitInput
        return coerce(value)

    return coerce_not_null


def _leaf(type_: GraphQLScalarType | GraphQLEnumType) -> Coerce:
    coerce = type_.coerce_input_value

    def coerce_leaf(value: object) -> object:
        return None if value is None else coerce(value)  # type: ignore[arg-type]  # it checks that itself

    return coerce_leaf


def _list_of(coerce: Coerce) -> Coerce:
    def coerce_list(value: object) -> object:
        if value is None:
            return None
        if type(value) is list:
            return [coerce(item) for item in value]
        if type(value) in _SINGLE:
            return [coerce(value)]
        raise UnfitInput

    return coerce_list


def _input_object(type_: GraphQLInputObjectType, within: tuple[GraphQLType, ...]) -> Coerce:
    fields = tuple(
        (
            name,
            field.out_name or name,
            _compile(field.type, within),
            _default(field),
            is_required_input_field(field),
        )
        for name, field in type_.fields.items()
    )

    def coerce_object(value: object) -> object:
        if value is None:
            return None
        if type(value) is not dict:
            raise UnfitInput
        coerced: dict[str, object] = {}
        unknown = len(value)
        for name, out_name, coerce, default, is_required in fields:
            if name in value:
                unknown -= 1
                coerced[out_name] = coerce(value[name])
            elif is_required:
                raise UnfitInput
            elif default is not Undefined:
                coerced[out_name] = default
        if unknown:
            raise UnfitInput
        return coerced

    return coerce_object
