"""Parsing, validation and execution by graphql-core, without garbage in circles.

In graphql-core each visitor, executor and token is part of a circle of references, so that what was made of
a document, megabytes perhaps, stays until the garbage collection comes by. It comes late in a server that
holds much else, and stops everything while it looks. Here each circle is cut as soon as it has served.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from typing import Any, Final, final

import graphql
from graphql import (
    DocumentNode,
    FragmentDefinitionNode,
    GraphQLResolveInfoHelpers,
    GraphQLSchema,
    GraphQLSyntaxError,
    Lexer,
    Node,
    OperationDefinitionNode,
    ParallelVisitor,
    Source,
    Token,
    TokenKind,
    TypeInfo,
    TypeInfoVisitor,
    ValidationContext,
    Visitor,
    specified_rules,
    visit,
)
from graphql.language.parser import Parser
from graphql.validation.validate import ValidationAbortedError
from graphql.validation.validation_context import VariableUsage, VariableUsageVisitor

__all__ = ["Executor", "forget_tokens", "parse", "validate"]

_MAX_ERRORS: Final = 20
_TOO_MANY_ERRORS: Final = "Too many validation errors, error limit reached. Validation aborted."
_NO_TOKEN: Final = Token(TokenKind.SOF, 0, 0, 0, 0)


def parse(query: str, *, max_tokens: int) -> DocumentNode:
    """Parse a document, as :func:`graphql.parse` does; a selection set may not be empty.

    :raises GraphQLSyntaxError: it is not one, has more tokens, or is nested too deeply.
    """
    source = Source(query)
    lexer = Lexer(source)
    token: Token | None = lexer.token
    parser = Parser(source, max_tokens=max_tokens, allow_empty_selection_sets=False, lexer=lexer)
    try:
        return parser.parse_document()
    except RecursionError as error:
        raise GraphQLSyntaxError(source, lexer.token.start, "Document is nested too deeply.") from error
    finally:
        while token is not None:
            following = token.next
            token.prev = token.next = None
            token = following


def forget_tokens(ast: DocumentNode) -> None:
    """Drop the tokens of a document that is kept, ten times the memory of its nodes. Places stay."""
    waiting: list[Node] = [ast]
    while waiting:
        node = waiting.pop()
        if node.loc is not None:
            node.loc.start_token = node.loc.end_token = _NO_TOKEN
        for key in node.keys:
            value = getattr(node, key, None)
            if isinstance(value, Node):
                waiting.append(value)
            elif isinstance(value, (list, tuple)):
                waiting += [each for each in value if isinstance(each, Node)]


def validate(
    schema: GraphQLSchema, ast: DocumentNode, *, with_suggestions: bool = True
) -> list[graphql.GraphQLError]:
    """Validate a document by the rules of the specification, as :func:`graphql.validate` does.

    :param with_suggestions: whether errors suggest names, which takes long where many are wrong.
    :return: the first 20 errors; where there are more, one that says so.
    :raises RecursionError: its fragments are nested too deeply.
    """
    errors: list[graphql.GraphQLError] = []

    def on_error(error: graphql.GraphQLError) -> None:
        if len(errors) == _MAX_ERRORS:
            raise ValidationAbortedError(_TOO_MANY_ERRORS)
        errors.append(error)

    type_info = TypeInfo(schema)
    context = _Context(schema, ast, type_info, on_error, not with_suggestions, False)
    rules = [rule(context) for rule in specified_rules]
    together = ParallelVisitor(rules)
    whole = TypeInfoVisitor(type_info, together)
    try:
        visit(ast, whole)
    except ValidationAbortedError as error:  # by a rule that would take too long, perhaps
        errors.append(graphql.GraphQLError(error.message))  # anew: that one holds this frame
    finally:
        _cut(*rules, together, whole)
    return errors


def _cut(*visitors: Visitor) -> None:
    """Let go of what visitors hold: their own methods, and through them each other."""
    for visitor in visitors:
        vars(visitor).clear()


@final
class _Context(ValidationContext):
    """The context that validation rules use; it does not keep the visitors that it makes."""

    def get_variable_usages(
        self, node: OperationDefinitionNode | FragmentDefinitionNode
    ) -> list[VariableUsage]:
        usages = self._variable_usages.get(node)
        if usages is None:
            of = node if isinstance(node, FragmentDefinitionNode) else None
            usage = VariableUsageVisitor(self._type_info, of)
            whole = TypeInfoVisitor(self._type_info, usage)
            visit(node, whole)
            usages = self._variable_usages[node] = usage.usages
            _cut(usage, whole)
        return usages


async def _gather(awaitables: Sequence[Awaitable[Any]]) -> list[Any]:
    return await asyncio.gather(*awaitables)


def _track(_maybe_awaitables: Sequence[Any]) -> None:
    """Do nothing: no resolver leaves work behind."""


@final
class Executor(graphql.Executor[Any]):
    """graphql-core's, but the helpers it offers to resolvers are not its own methods."""

    def __init__(self, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        self.async_helpers = _HELPERS


_HELPERS: Final = GraphQLResolveInfoHelpers(gather=_gather, track=_track)
