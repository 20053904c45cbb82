"""Limit the size of a document and its variables, before the costlier validation.

A document is counted in one walk over its text and one over its fragments, each of them once: a
fragment that spreads another twice doubles a number, not the work.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple, final

import msgspec
from graphql import (
    DocumentNode,
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    InlineFragmentNode,
    OperationDefinitionNode,
    SelectionNode,
)

from circuit_breaker_sdk.errors import GraphQLError
from circuit_breaker_server.graphql.errors import DocumentInvalid
from circuit_breaker_server.settings.document_limits import DocumentLimits

__all__ = [
    "REFUSED_SECONDS",
    "Size",
    "check_characters",
    "check_document",
    "check_variables",
    "too_complex",
    "too_many_tokens",
    "too_much_work",
]

REFUSED_SECONDS: Final = 1.0
"""The most seconds that a refusal by rate is held back: a client that retries at once costs as much as one
that is served."""
_INTROSPECTION: Final = frozenset({"__schema", "__type"})

_encode: Final = msgspec.json.Encoder().encode


def too_complex(what: str, advice: str, code: str = "DOCUMENT_TOO_COMPLEX") -> DocumentInvalid:
    """Return the refusal of a document: what is over which limit, and what to do."""
    return DocumentInvalid([GraphQLError(message=f"{what}: {advice}", extensions={"code": code})])


def too_much_work(wait_seconds: float) -> GraphQLError:
    """Return the refusal of a principal that requested too much work in too short a time."""
    return GraphQLError(
        message=f"too much work is asked for: try again in {wait_seconds:.3f} s, or ask for less at a time",
        extensions={"code": "RATE_LIMITED", "retryAfterSeconds": round(wait_seconds, 3)},
    )


def too_many_tokens(limits: DocumentLimits) -> DocumentInvalid:
    """Return the refusal of a document that the parser gave up."""
    return too_complex(
        f"the document has more than {limits.max_tokens} tokens",
        "ask for less, put values into variables, or send several documents",
    )


def check_characters(query: str, limits: DocumentLimits) -> None:
    """Refuse a text that is too long to be parsed.

    :raises DocumentInvalid: it has too many characters.
    """
    if len(query) > limits.max_characters:
        raise too_complex(
            f"the document has {len(query)} characters, {limits.max_characters} are allowed",
            "put values into variables, or send several documents",
        )


def check_variables(variables: Mapping[str, object] | None, limits: DocumentLimits) -> None:
    """Refuse variables that are too many or too large.

    :raises DocumentInvalid: they are, code ``INVALID_INPUT``.
    """
    if not variables:
        return
    if len(variables) > limits.max_variables:
        raise too_complex(
            f"the operation has {len(variables)} variables, {limits.max_variables} are allowed",
            "put several values into one input object or list",
            "INVALID_INPUT",
        )
    try:
        size_bytes = len(_encode(variables))
    except RecursionError:
        return  # what is nested so deep is refused where the value is coerced, with its place
    if size_bytes > limits.max_variables_bytes:
        raise too_complex(
            f"the variables have {size_bytes} bytes of JSON, {limits.max_variables_bytes} are allowed",
            "send less at a time",
            "INVALID_INPUT",
        )


@final
class Size(NamedTuple):
    """The size of a document.

    :ivar directives: the number of all directives.
    :ivar fields: the number of fields of its largest operation, fragments written out.
    """

    directives: int
    fields: int


def check_document(ast: DocumentNode, limits: DocumentLimits) -> Size:
    """Refuse a document that is too complex; it need not be valid, its fragments may even be a circle.

    :raises DocumentInvalid: it has too many aliases, directives, root fields, levels or fields.
    """
    definitions = [
        _Selections(node)
        for node in ast.definitions
        if isinstance(node, OperationDefinitionNode | FragmentDefinitionNode)
    ]
    _refuse_above(
        limits.max_aliases,
        sum(each.aliases for each in definitions),
        "aliases",
        "send several documents",
    )
    directives = sum(each.directives for each in definitions)
    _refuse_above(
        limits.max_directives,
        directives,
        "directives",
        "leave fields out of the document instead",
    )
    fragments = {
        each.node.name.value: each for each in definitions if isinstance(each.node, FragmentDefinitionNode)
    }
    _expand(definitions, fragments)
    for each in definitions:
        if isinstance(each.node, FragmentDefinitionNode):
            continue  # counted where it is spread
        _refuse_above(
            limits.max_root_fields,
            each.root_fields,
            "root fields in one operation",
            "send several operations",
        )
        _refuse_above(
            limits.max_depth, each.depth, "levels of selections", "ask for what is further down by its id"
        )
        _refuse_above(
            limits.max_fields,
            each.fields,
            "fields once its fragments are written out",
            "spread fewer fragments",
        )
    operations = [each.fields for each in definitions if isinstance(each.node, OperationDefinitionNode)]
    return Size(directives, max(operations, default=0))


def _refuse_above(limit: int, found: int, what: str, advice: str) -> None:
    if found > limit:
        # Fragments that double each other make numbers of hundreds of digits.
        shown = str(found) if found < 10**12 else "more than 10^12"
        raise too_complex(f"the document has {shown} {what}, {limit} are allowed", advice)


@final
class _Selections:
    """The counts of one definition: at first its own nodes, later with those of the fragments it spreads.

    :ivar fields: fields on all levels.
    :ivar root_fields: fields on the first level.
    :ivar depth: levels, not counting those inside of introspection.
    :ivar aliases: written in it; those of a fragment are counted with the fragment.
    :ivar directives: likewise.
    :ivar spreads: name, and the level it adds to: 0 is the first, ``None`` is inside of introspection.
    """

    __slots__ = ("aliases", "depth", "directives", "fields", "node", "root_fields", "spreads")

    def __init__(self, node: OperationDefinitionNode | FragmentDefinitionNode) -> None:
        self.node = node
        self.fields = self.root_fields = self.depth = self.aliases = 0
        self.directives = len(node.directives or ())
        for variable in node.variable_definitions or ():
            self.directives += len(variable.directives or ())
        self.spreads: list[tuple[str, int | None]] = []
        self._walk(node.selection_set.selections)

    def _walk(self, selections: tuple[SelectionNode, ...]) -> None:
        # Without recursion: a document may be as deep as the parser could just manage.
        waiting: list[tuple[tuple[SelectionNode, ...], int | None]] = [(selections, 0)]
        while waiting:
            selections, level = waiting.pop()
            for node in selections:
                self.directives += len(node.directives or ())
                if isinstance(node, FragmentSpreadNode):
                    self.spreads.append((node.name.value, level))
                elif isinstance(node, InlineFragmentNode):
                    waiting.append((node.selection_set.selections, level))
                elif isinstance(node, FieldNode):
                    self.fields += 1
                    self.aliases += node.alias is not None
                    if level is not None:
                        self.root_fields += level == 0
                        self.depth = max(self.depth, level + 1)
                    if node.selection_set is not None:
                        below = None if level is None or node.name.value in _INTROSPECTION else level + 1
                        waiting.append((node.selection_set.selections, below))

    def add(self, spread: _Selections, level: int | None) -> None:
        """Add a fragment, complete itself, that is spread on a level."""
        self.fields += spread.fields
        if level is not None:
            self.root_fields += spread.root_fields if level == 0 else 0
            self.depth = max(self.depth, level + spread.depth)


def _expand(definitions: list[_Selections], fragments: Mapping[str, _Selections]) -> None:
    """Add to each definition what it spreads, the innermost first; each is completed once.

    A fragment inside of itself is left out: validation refuses it later.
    """
    begun: set[str] = set()
    ended: set[str] = set()
    for definition in definitions:
        if isinstance(definition.node, FragmentDefinitionNode):
            continue
        # A stack of our own: a chain of fragments may be longer than Python's.
        stack = [("", definition, list(definition.spreads))]
        while stack:
            name, current, left = stack[-1]
            if not left:
                stack.pop()
                ended.add(name)
                continue
            inner, level = left[-1]
            fragment = fragments.get(inner)
            if fragment is None or inner in ended or inner in begun:
                left.pop()
                if fragment is not None and inner in ended:
                    current.add(fragment, level)
            else:
                # It stays in `left`, and is added when it is complete.
                begun.add(inner)
                stack.append((inner, fragment, list(fragment.spreads)))
