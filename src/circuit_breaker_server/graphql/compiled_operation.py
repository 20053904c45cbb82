"""Compile operations of one root field: graphql-core does what remains, input that does not fit among it.

Its executor looks at each field of each answer anew, which took half the time of a mutation.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Final, Literal, TypeAlias, cast, final

import graphql
import msgspec
from graphql import (
    FieldNode,
    GraphQLField,
    GraphQLSchema,
    OperationDefinitionNode,
    VariableDefinitionNode,
    get_argument_values,
    get_variable_values,
)

from circuit_breaker_server.graphql.documents import Document
from circuit_breaker_server.graphql.errors import forget_frames
from circuit_breaker_server.graphql.input_compiler import CoerceInput, UnfitInput, compile_input
from circuit_breaker_server.graphql.schema import load_schema
from circuit_breaker_server.graphql.selection_compiler import (
    Complete,
    Completion,
    UnfitSelection,
    compile_selection,
    root_fields,
)
from circuit_breaker_server.graphql.validation import Executor

__all__ = ["CompiledOperation", "compile_operation", "compiled_operation"]

_ENCODER: Final = msgspec.json.Encoder()
MAX_COERCION_ERRORS: Final = 50
_OPERATIONS_OF_A_DOCUMENT: Final = 8


_Compiled: TypeAlias = "CompiledOperation | Literal['asked for once'] | None"


@final
class CompiledOperation:
    """One root field of a query or mutation, and what is selected of it.

    :ivar name: the field's.

    Example::

        operation = compiled_operation(document, None, frozenset())
        operation.encode({"id": "w1"})  # b'{"data":{"workflow":{"id":"w1"}}'
    """

    __slots__ = (
        "_coerce",
        "_complete",
        "_definitions",
        "_exact",
        "_field",
        "_head",
        "_node",
        "_nullable",
        "_schema",
        "name",
    )

    def __init__(
        self,
        *,
        schema: GraphQLSchema,
        key: str,
        node: FieldNode,
        field: GraphQLField,
        definitions: Collection[VariableDefinitionNode],
        completion: Completion,
    ) -> None:
        self.name = node.name.value
        self._schema = schema
        self._node = node
        self._field = field
        self._definitions = definitions
        self._head = b'{"data":{' + _ENCODER.encode(key) + b":"
        self._nullable = completion.nullable
        self._exact = completion.exact
        self._complete: Complete = completion.complete
        self._coerce: CoerceInput | None
        try:
            self._coerce = compile_input(schema, definitions, field, node)
        except UnfitInput:
            self._coerce = None

    def arguments(self, variables: Mapping[str, object] | None) -> dict[str, object] | None:
        """Coerce the variables; return the field's arguments, ``None`` where they do not fit."""
        given = dict(variables) if variables else {}
        if self._coerce is None:
            return self._arguments_by_graphql_core(given)
        try:
            return self._coerce(given)
        except Exception:  # noqa: BLE001 (what a scalar raises, too)
            return self._arguments_by_graphql_core(given)

    def _arguments_by_graphql_core(self, given: dict[str, object]) -> dict[str, object] | None:
        values = get_variable_values(self._schema, self._definitions, given, MAX_COERCION_ERRORS)
        if isinstance(values, list):
            for error in values:
                forget_frames(error)
            return None
        try:
            return get_argument_values(self._field, self._node, values)
        except Exception:  # noqa: BLE001 (graphql-core words it)
            return None

    def encode(self, value: object) -> bytes | None:
        """Return the answer without its closing brace; ``None`` where the value is for graphql-core."""
        if value is None:
            return self._head + b"null}" if self._nullable else None
        if isinstance(value, Exception) or (self._exact is not None and type(value) is not self._exact):
            return None
        try:
            return self._head + _ENCODER.encode(self._complete(value)) + b"}"
        except Exception:  # noqa: BLE001 (graphql-core knows what becomes of it, and words it)
            return None


def compiled_operation(
    document: Document, operation_name: str | None, withheld: frozenset[str]
) -> CompiledOperation | None:
    """Return an operation of a document compiled, ``None`` where graphql-core has to execute it.

    It is compiled when it is asked for the second time, once, and depends on no variables. Where that would
    cost more than it is worth it is not: documents with directives or very many fields are left alone, and
    so are all but the first few operations of one.

    :param withheld: scopes whose fields are withheld.
    """
    if not document.is_plain:
        return None
    key = (operation_name or None, withheld)
    known = cast("dict[tuple[str | None, frozenset[str]], _Compiled]", document.compiled)
    if key in known:
        operation = known[key]
        if operation != "asked for once":
            return operation
        operation = known[key] = compile_operation(load_schema(), document, operation_name, withheld)
        return operation
    if len(known) < _OPERATIONS_OF_A_DOCUMENT:
        known[key] = "asked for once"
    return None


def compile_operation(
    schema: GraphQLSchema, document: Document, operation_name: str | None, withheld: frozenset[str]
) -> CompiledOperation | None:
    """Compile an operation of a document without directives, as :func:`compiled_operation` returns it."""
    definition = document.operation(operation_name)
    executor = _executor(schema, document, definition, withheld)
    root = schema.get_root_type(definition.operation)
    fields = {} if executor is None else root_fields(executor)
    if executor is None or root is None or len(fields) != 1:
        return None
    ((key, details),) = fields.items()
    node = details[0].node
    field = root.fields.get(node.name.value)
    if field is None or field.resolve is not None:  # __typename and its like; what is withheld as a whole
        return None
    try:
        completion = compile_selection(executor, field.type, list(details))
    except UnfitSelection:
        return None
    return CompiledOperation(
        schema=schema,
        key=key,
        node=node,
        field=field,
        definitions=definition.variable_definitions or (),
        completion=completion,
    )


def _executor(
    schema: GraphQLSchema, document: Document, definition: OperationDefinitionNode, withheld: frozenset[str]
) -> Executor | None:
    # Only to collect fields, which no variable has a say in: any values will do.
    without = OperationDefinitionNode(
        operation=definition.operation,
        name=definition.name,
        variable_definitions=(),
        directives=(),
        selection_set=definition.selection_set,
    )
    others = (each for each in document.ast.definitions if not isinstance(each, OperationDefinitionNode))
    executor = Executor.build(
        schema, graphql.DocumentNode(definitions=(without, *others)), context_value=withheld
    )
    return None if isinstance(executor, list) else cast("Executor", executor)
