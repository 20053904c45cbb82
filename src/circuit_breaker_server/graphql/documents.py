"""Documents parsed and validated once, and kept while they are in use."""

from __future__ import annotations

import asyncio
import re
from collections import OrderedDict
from collections.abc import Mapping
from functools import partial
from typing import Final, final

from graphql import (
    DocumentNode,
    FieldNode,
    FragmentDefinitionNode,
    GraphQLSchema,
    GraphQLSyntaxError,
    OperationDefinitionNode,
)

from circuit_breaker_sdk.errors import GraphQLError
from circuit_breaker_server.graphql.cost import Cost, Most, cost_of
from circuit_breaker_server.graphql.errors import DocumentInvalid, input_error, to_wire
from circuit_breaker_server.graphql.limit_checks import (
    REFUSED_SECONDS,
    Size,
    check_characters,
    check_document,
    check_variables,
    too_many_tokens,
    too_much_work,
)
from circuit_breaker_server.graphql.schema import load_schema
from circuit_breaker_server.graphql.validation import forget_tokens, parse, validate
from circuit_breaker_server.scheduling import Slices
from circuit_breaker_server.security.work_budgets import Budgets
from circuit_breaker_server.settings.document_limits import DocumentLimits
from circuit_breaker_server.storage.lru import RecentlyUsed

__all__ = ["Document", "Documents", "begins_with_subscription"]

# Blanks, line ends, commas, a byte order mark and comments are ignored (GraphQL specification, section 2.1).
_SUBSCRIPTION: Final = re.compile(r"(?:[\ufeff\s,]|#[^\n\r]*)*subscription\b")

_PLAIN_FIELDS: Final = 500
"""Of an operation that is compiled: every place of it is looked at, whatever there is in the data."""
_SHORT_CHARACTERS: Final = 512
"""Of a document that is parsed on the event loop: 10 ms at most, and one as people write it takes 2."""
_SEEN: Final = 10_000
"""Long documents that are remembered by their hash."""
_CHARACTERS_PER_VALUE: Final = 2
"""Of a document that is parsed: two characters take as long as a value of an answer."""
_TOO_MANY_TOKENS: Final = "tokens. Parsing aborted."
"""The end of graphql-core's error for too many tokens; the error has no code."""


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
    :ivar compiled: a cache of the compiler's, by operation name and withheld scopes (``compiled_operation``).
    """

    __slots__ = (
        "__weakref__",
        "_costs",
        "_schema",
        "ast",
        "compiled",
        "is_plain",
        "operations",
        "query",
    )

    def __init__(
        self, query: str, ast: DocumentNode, *, schema: GraphQLSchema | None = None, is_plain: bool = True
    ) -> None:
        self._schema = schema
        self._costs: dict[str | None, Cost] = {}
        self.query = query
        self.is_plain = is_plain
        self.ast = ast
        self.compiled: dict[tuple[str | None, frozenset[str]], object] = {}
        self.operations: dict[str | None, OperationDefinitionNode] = {
            node.name.value if node.name else None: node
            for node in ast.definitions
            if isinstance(node, OperationDefinitionNode)
        }

    def cost(self, name: str | None, variables: Mapping[str, object] | None, most: Most | None = None) -> int:
        """Estimate how many values the answer to an operation has; see :mod:`.cost`.

        :param most: how many items of each list there are for the caller.
        :raises DocumentInvalid: as :meth:`operation`.
        """
        cost = self._costs.get(name)
        if cost is None:
            operation = self.operation(name)
            fragments = {
                node.name.value: node
                for node in self.ast.definitions
                if isinstance(node, FragmentDefinitionNode)
            }
            cost = self._costs[name] = cost_of(self._schema or load_schema(), operation, fragments)
        return cost.of(variables or {}, most)

    def asks_for_the_schema_alone(self, name: str | None) -> bool:
        """Tell whether an operation has no other root fields than ``__schema``, and takes no variables."""
        operation = self.operation(name)
        return not operation.variable_definitions and all(
            isinstance(node, FieldNode) and node.name.value == "__schema"
            for node in operation.selection_set.selections
        )

    def root_fields(self, name: str | None) -> list[str]:
        """Return the fields of the schema that an operation asks for first; those of fragments are left out.

        :raises DocumentInvalid: as :meth:`operation`.
        """
        selections = self.operation(name).selection_set.selections
        return [each.name.value for each in selections if isinstance(each, FieldNode)]

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
    """Parses and validates; keeps the documents used last, long ones from the second time on.

    A short document is parsed at once if no other operation has the loop in this turn; else it waits for its
    turn. A long one is parsed in a thread, one at a time, principals in turn.

    :param max_entries: how many documents are kept.
    :param max_characters: how much text they may have together; what they take in memory follows from it.
    :param slices: the event loop's, shared with what executes operations.
    :param budgets: of principals; a document that has to be parsed costs a value for two characters.
    :ivar limits: how large one document and its variables may be.
    :ivar slices: as given.

    Example::

        document = Documents(load_schema()).get("{ health }")
    """

    def __init__(
        self,
        schema: GraphQLSchema,
        *,
        max_entries: int = 1000,
        max_characters: int = 128 * 1024,
        limits: DocumentLimits | None = None,
        slices: Slices | None = None,
        budgets: Budgets | None = None,
    ) -> None:
        self.schema = schema
        self._budgets = budgets or Budgets(None)
        self.limits = limits or DocumentLimits()
        self.slices = slices or Slices()
        self._kept: RecentlyUsed[str, Document] = RecentlyUsed(
            max_entries=max_entries, max_characters=max_characters
        )
        self._seen: OrderedDict[int, None] = OrderedDict()
        self._reading: dict[str, asyncio.Task[Document | DocumentInvalid]] = {}

    def change(self, limits: DocumentLimits) -> None:
        """Take other limits; documents that were read before have to be read again."""
        self.limits = limits
        self._kept.clear()

    def __len__(self) -> int:
        """Tell how many documents are kept."""
        return len(self._kept)

    def get(self, query: str, variables: Mapping[str, object] | None = None) -> Document:
        """Return the document with this text, for an operation with these variables; however long it takes.

        :raises DocumentInvalid: it does not parse, does not fit the schema, or is too large; or its variables
            are.
        """
        check_variables(variables, self.limits)
        document = self._kept.get(query)
        return self._keep(query, *_read(self.schema, query, self.limits)) if document is None else document

    def get_now(
        self, query: str, variables: Mapping[str, object] | None = None, *, key: str
    ) -> Document | None:
        """Return the document if that takes no time to speak of; ``None``: :meth:`read` it.

        :param key: of the principal, or the address.
        :raises DocumentInvalid: as :meth:`get`.
        """
        check_variables(variables, self.limits)
        document = self._kept.get(query)
        if document is not None:
            return document
        check_characters(query, self.limits)
        if len(query) > _SHORT_CHARACTERS or not self.slices.take_now() or self._charge(query, key):
            return None
        return self._keep(query, *_read(self.schema, query, self.limits))

    def _charge(self, query: str, key: str) -> float | None:
        """Charge the parsing of a document; return the seconds to wait where the budget is spent."""
        return self._budgets.spend(key, len(query) / _CHARACTERS_PER_VALUE)

    async def read(self, query: str, variables: Mapping[str, object] | None = None, *, key: str) -> Document:
        """Return the document once it is the turn of ``key`` to have one parsed.

        :param key: of the principal, or the address.
        :raises DocumentInvalid: as :meth:`get`; or too much work was asked for, code ``RATE_LIMITED``.
        """
        known = self.get_now(query, variables, key=key)
        if known is not None:
            return known
        reading = self._reading.get(query)
        if reading is None:
            wait = self._charge(query, key)
            if wait is not None:
                await asyncio.sleep(min(wait, REFUSED_SECONDS))
                raise DocumentInvalid([too_much_work(wait)])
            reading = asyncio.get_running_loop().create_task(self._read_in_turn(query, key))
            self._reading[query] = reading
            reading.add_done_callback(lambda _: self._reading.pop(query))
        # Others may wait for the same document: a caller that leaves leaves it to them.
        document = await asyncio.shield(reading)
        if isinstance(document, DocumentInvalid):
            raise DocumentInvalid(document.errors)
        return document

    async def aclose(self) -> None:
        """Parse no more. Idempotent."""
        tasks = list(self._reading.values())
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    async def _read_in_turn(self, query: str, key: str) -> Document | DocumentInvalid:
        try:
            if len(query) <= _SHORT_CHARACTERS:
                await self.slices.take(key)
                return self._keep(query, *_read(self.schema, query, self.limits))
            read = partial(_read, self.schema, query, self.limits, with_suggestions=False)
            return self._keep(query, *await self.slices.beside(read, key))
        except DocumentInvalid as error:
            return error  # a task that fails and its waiting caller would hold each other

    def _keep(self, query: str, ast: DocumentNode, size: Size) -> Document:
        is_plain = not size.directives and size.fields <= _PLAIN_FIELDS
        document = Document(query, ast, schema=self.schema, is_plain=is_plain)
        if len(query) <= _SHORT_CHARACTERS or self._was_seen(query):
            self._kept.put(query, document, characters=len(query))
        return document

    def _was_seen(self, query: str) -> bool:
        """Tell whether a long document was parsed before: most of a flood never come again."""
        hashed = hash(query)
        if hashed in self._seen:
            return True
        self._seen[hashed] = None
        if len(self._seen) > _SEEN:
            self._seen.popitem(last=False)
        return False


def _read(
    schema: GraphQLSchema, query: str, limits: DocumentLimits, *, with_suggestions: bool = True
) -> tuple[DocumentNode, Size]:
    """Parse and validate.

    :param with_suggestions: whether errors suggest names, which takes long where many are wrong.
    """
    read = _try_to_read(schema, query, limits, with_suggestions)
    if isinstance(read, DocumentInvalid):
        raise DocumentInvalid(read.errors)  # anew: that one holds frames, and they all of the document
    return read


def _try_to_read(
    schema: GraphQLSchema, query: str, limits: DocumentLimits, with_suggestions: bool
) -> tuple[DocumentNode, Size] | DocumentInvalid:
    try:
        check_characters(query, limits)
        ast = parse(query, max_tokens=limits.max_tokens)
        size = check_document(ast, limits)
        errors = validate(schema, ast, with_suggestions=with_suggestions)
    except DocumentInvalid as error:
        return error
    except GraphQLSyntaxError as error:
        if error.message.endswith(_TOO_MANY_TOKENS):
            return too_many_tokens(limits)
        return DocumentInvalid([to_wire(error, "GRAPHQL_PARSE_FAILED")])
    except RecursionError:
        nested = GraphQLError(
            message="the document is nested too deeply", extensions={"code": "GRAPHQL_PARSE_FAILED"}
        )
        return DocumentInvalid([nested])
    if errors:
        return DocumentInvalid([input_error(error, "GRAPHQL_VALIDATION_FAILED") for error in errors])
    forget_tokens(ast)
    return ast, size
