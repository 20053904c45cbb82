"""What an operation may cost, estimated before it is executed: the number of values in its answer.

The estimate is made from the document and its variables. What that does not allow is estimated once more, by
how much there is for the caller: a refusal depends on nobody else's data.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final, TypeAlias, final

from graphql import (
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    GraphQLField,
    GraphQLOutputType,
    GraphQLSchema,
    InlineFragmentNode,
    IntValueNode,
    OperationDefinitionNode,
    SelectionSetNode,
    VariableNode,
    get_named_type,
    is_composite_type,
    is_list_type,
    is_non_null_type,
)

from circuit_breaker_server.engine.paging import MAX_PAGE, PAGE_ITEMS

__all__ = ["Cost", "Most", "cost_of"]

_NESTED_ITEMS: Final = 5
"""Expected of a list that has no pages: states of a workflow, entries of a history."""
_INTROSPECTION_VALUES: Final = 20_000
"""Of ``__schema`` and ``__type``, whatever is selected."""

Variables: TypeAlias = Mapping[str, object]
Most: TypeAlias = Callable[[str], int]
"""From a root field that is a list to how many items of it there are for the caller."""


@final
class Cost:
    """The estimate of one operation.

    Example::

        cost_of(schema, operation, {}).of({"first": 10})
    """

    def __init__(self, fixed: int, lists: Sequence[tuple[str, int, _Items]]) -> None:
        self._fixed = fixed
        self._lists = lists

    def of(self, variables: Variables, most: Most | None = None) -> int:
        """Return the most values that the answer is expected to have.

        :param most: of each list; without it, all that is asked for is taken to be there.
        """
        return self._fixed + sum(
            values * (items(variables) if most is None else min(items(variables), max(1, most(field))))
            for field, values, items in self._lists
        )


def cost_of(schema: GraphQLSchema, operation: OperationDefinitionNode, fragments: _Fragments) -> Cost:
    """Return the estimate of a valid operation.

    :param fragments: of its document, by name.
    """
    root = schema.get_root_type(operation.operation)
    if root is None:
        return Cost(1, ())
    terms = _Estimate(schema, fragments).roots(operation.selection_set, root)
    lists = [(field, values, items) for field, values, items in terms if items is not None]
    return Cost(sum(values for _, values, items in terms if items is None), lists)


_Fragments: TypeAlias = Mapping[str, FragmentDefinitionNode]
_Items: TypeAlias = Callable[[Variables], int]


@final
class _Estimate:
    """One walk over an operation; each fragment is walked over once for each type that it is spread on."""

    def __init__(self, schema: GraphQLSchema, fragments: _Fragments) -> None:
        self._schema = schema
        self._fragments = fragments
        self._known: dict[tuple[str, str], int] = {}

    def roots(
        self, selections: SelectionSetNode, parent: GraphQLOutputType
    ) -> list[tuple[str, int, _Items | None]]:
        """Return each root field with its values; a list with pages with those of one item, and its items."""
        terms: list[tuple[str, int, _Items | None]] = []
        for node in selections.selections:
            if isinstance(node, FieldNode):
                field = self._field(node, parent)
                paged = field is not None and "first" in field.args
                values = self._values(node, parent, of_item=paged)
                terms.append((node.name.value, values, _items(node) if paged else None))
            elif isinstance(node, InlineFragmentNode):
                terms += self.roots(node.selection_set, parent)
            elif isinstance(node, FragmentSpreadNode) and node.name.value in self._fragments:
                terms += self.roots(self._fragments[node.name.value].selection_set, parent)
        return terms

    def _selected(self, selections: SelectionSetNode, parent: GraphQLOutputType) -> int:
        total = 0
        for node in selections.selections:
            if isinstance(node, FieldNode):
                total += self._values(node, parent)
            elif isinstance(node, InlineFragmentNode):
                condition = node.type_condition
                inner = parent if condition is None else self._schema.type_map.get(condition.name.value)
                total += self._selected(node.selection_set, parent if inner is None else inner)  # type: ignore[arg-type]  # a composite type in a valid document
            elif isinstance(node, FragmentSpreadNode):
                total += self._spread(node.name.value, parent)
        return total

    def _spread(self, name: str, parent: GraphQLOutputType) -> int:
        key = (name, str(parent))
        known = self._known.get(key)
        if known is None:
            fragment = self._fragments.get(name)
            known = (
                0 if fragment is None else self._selected(fragment.selection_set, self._of(fragment, parent))
            )
            self._known[key] = known
        return known

    def _of(self, fragment: FragmentDefinitionNode, parent: GraphQLOutputType) -> GraphQLOutputType:
        found = self._schema.type_map.get(fragment.type_condition.name.value)
        return parent if found is None else found  # type: ignore[return-value]  # as above

    def _field(self, node: FieldNode, parent: GraphQLOutputType) -> GraphQLField | None:
        fields: Mapping[str, GraphQLField] = getattr(parent, "fields", {})
        return fields.get(node.name.value)

    def _values(self, node: FieldNode, parent: GraphQLOutputType, *, of_item: bool = False) -> int:
        """Return how many values a field has, or one item of it."""
        name = node.name.value
        if name.startswith("__"):
            return 1 if name == "__typename" else _INTROSPECTION_VALUES
        field = self._field(node, parent)
        if field is None:
            return 1
        type_ = field.type
        inner, times = get_named_type(type_), 1
        if is_list_type(type_.of_type if is_non_null_type(type_) else type_) and not of_item:
            times = MAX_PAGE if name == "edges" else _NESTED_ITEMS
        selected = 0
        if node.selection_set is not None and is_composite_type(inner):
            selected = self._selected(node.selection_set, inner)
        return times * (1 + selected)


def _items(node: FieldNode) -> _Items:
    """Return how many items of a list are asked for, by its argument ``first``."""
    given = next((each.value for each in node.arguments or () if each.name.value == "first"), None)
    if isinstance(given, IntValueNode):
        fixed = min(int(given.value[:10]), PAGE_ITEMS)
        return lambda _variables: max(1, fixed)
    if isinstance(given, VariableNode):
        name = given.name.value

        def items(variables: Variables) -> int:
            value = variables.get(name)
            return max(1, min(value, PAGE_ITEMS)) if type(value) is int else PAGE_ITEMS

        return items
    return lambda _variables: PAGE_ITEMS
