"""Documents parsed and validated once, and kept while they are in use."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final, Literal, TypeAlias, final

import graphql
from graphql import DocumentNode, GraphQLSchema, GraphQLSyntaxError, OperationDefinitionNode

from circuit_breaker_sdk.errors import GraphQLError
from circuit_breaker_server.config import DocumentLimits
from circuit_breaker_server.graphql.errors import DocumentInvalid, input_error, to_wire
from circuit_breaker_server.graphql.limits import (
    Size,
    check_characters,
    check_document,
    check_variables,
    too_many_tokens,
)
from circuit_breaker_server.recently_used import RecentlyUsed

if TYPE_CHECKING:
    from circuit_breaker_server.graphql.compiled import CompiledOperation

_Compiled: TypeAlias = "CompiledOperation | Literal['asked for once'] | None"

__all__ = ["Document", "Documents", "begins_with_subscription"]

# Blanks, line ends, commas, a byte order mark and comments are ignored (GraphQL specification, section 2.1).
_SUBSCRIPTION: Final = re.compile(r"(?:[\ufeff\s,]|#[^\n\r]*)*subscription\b")

_PLAIN_FIELDS: Final = 500
"""Of an operation that is compiled: every place of it is looked at, whatever there is in the data."""
_TOO_MANY_TOKENS: Final = "tokens. Parsing aborted."
"""How graphql-core's parser says it; it has no code for it."""


def begins_with_subscription(query: str) -> bool:
    """Tell, without parsing, whether the first definition of a document is a subscription."""
    return _SUBSCRIPTION.match(query) is not None


@final
class Document:
    """A valid document. Compared by identity, so that what is compiled from it can be kept beside it.

    :ivar query: its text.
    :ivar ast: parsed, with locations.
    :ivar operations: by name; an anonymous operation's name is ``None``.
    :ivar is_plain: whether its operations may be compiled: it has no directives, and not very many fields.
    :ivar compiled: what :func:`.compiled.compiled_operation` has made of them, by name and scopes.
    """

    __slots__ = ("__weakref__", "ast", "compiled", "is_plain", "operations", "query")

    def __init__(self, query: str, ast: DocumentNode, *, is_plain: bool = True) -> None:
        self.query = query
        self.is_plain = is_plain
        self.ast = ast
        self.compiled: dict[tuple[str | None, frozenset[str]], _Compiled] = {}
        self.operations: dict[str | None, OperationDefinitionNode] = {
            node.name.value if node.name else None: node
            for node in ast.definitions
            if isinstance(node, OperationDefinitionNode)
        }

    def operation(self, name: str | None) -> OperationDefinitionNode:
        """Return the operation to execute; ``None`` or an empty name means the only one there is.

        :raises DocumentInvalid: there is none of that name, or none and several to choose from.
        """
        found = self.operations.get(name or None)
        if found is None and not name and len(self.operations) == 1:
            (found,) = self.operations.values()
        if found is not None:
            return found
        names = ", ".join(n for n in self.operations if n) or "none with a name"
        if name:
            message = f"the document has no operation {name[:80]!r}; it has: {names}"
        else:  # validation lets no document through that has none
            message = f"operationName must say which operation to execute: {names}"
        error = GraphQLError(message=message, extensions={"code": "OPERATION_RESOLUTION_FAILURE"})
        raise DocumentInvalid([error])


@final
class Documents:
    """Parses and validates; keeps the documents used last.

    :param max_entries: how many documents are kept.
    :param max_characters: how much text they may have together; what they take in memory follows from it.
    :ivar limits: how large one document and its variables may be.

    Example::

        document = Documents(load_schema()).get("{ health }")
    """

    def __init__(
        self,
        schema: GraphQLSchema,
        *,
        max_entries: int = 1000,
        max_characters: int = 512 * 1024,
        limits: DocumentLimits | None = None,
    ) -> None:
        self.schema = schema
        self.limits = limits or DocumentLimits()
        self._kept: RecentlyUsed[str, Document] = RecentlyUsed(
            max_entries=max_entries, max_characters=max_characters
        )

    def __len__(self) -> int:
        """Tell how many documents are kept."""
        return len(self._kept)

    def get(self, query: str, variables: Mapping[str, object] | None = None) -> Document:
        """Return the document with this text, for an operation with these variables.

        :raises DocumentInvalid: it does not parse, does not fit the schema, or is too large; or its variables
            are.
        """
        check_variables(variables, self.limits)
        document = self._kept.get(query)
        if document is None:
            ast, size = self._parse(query)
            is_plain = not size.directives and size.fields <= _PLAIN_FIELDS
            document = Document(query, ast, is_plain=is_plain)
            self._kept.put(query, document, characters=len(query))
        return document

    def _parse(self, query: str) -> tuple[DocumentNode, Size]:
        check_characters(query, self.limits)
        try:
            ast = graphql.parse(query, max_tokens=self.limits.max_tokens, allow_empty_selection_sets=False)
            size = check_document(ast, self.limits)
            errors = graphql.validate(self.schema, ast, max_errors=20, allow_empty_selection_sets=False)
        except GraphQLSyntaxError as error:
            if error.message.endswith(_TOO_MANY_TOKENS):
                raise too_many_tokens(self.limits) from error
            raise DocumentInvalid([to_wire(error, "GRAPHQL_PARSE_FAILED")]) from error
        except RecursionError as error:
            nested = GraphQLError(
                message="the document is nested too deeply", extensions={"code": "GRAPHQL_PARSE_FAILED"}
            )
            raise DocumentInvalid([nested]) from error
        if errors:
            raise DocumentInvalid([input_error(error, "GRAPHQL_VALIDATION_FAILED") for error in errors])
        return ast, size
