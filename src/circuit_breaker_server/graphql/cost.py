"""Estimate the cost of an operation before it is executed: the number of values in its answer.

The estimate is made from the document and its variables. If it is above a bound, it is made once more, with
the number of items that the caller may see: a refusal does not depend on the data of other callers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final, NamedTuple, TypeAlias, final

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
    StringValueNode,
    ValueNode,
    VariableNode,
    get_named_type,
    is_composite_type,
    is_list_type,
    is_non_null_type,
)

from circuit_breaker_server.engine.paging import MAX_PAGE, PAGE_ITEMS

__all__ = ["Cost", "Most", "cost_of"]

_NESTED_ITEMS: Final = 5
_HISTORY_ITEMS: Final = 50
"""Expected of a list that has no pages: states of a workflow, entries of a history."""
_TIMES: Final[Mapping[str, int]] = {"edges": MAX_PAGE, "history": _HISTORY_ITEMS}
_INTROSPECTION_VALUES: Final = 20_000
"""Of ``__schema`` and ``__type``, whatever is selected."""

Variables: TypeAlias = Mapping[str, object]
Most: TypeAlias = Callable[[str, str | None], int]
"""From a root field that is a list, and its ``workflowId``, to how many items there are for the caller."""


@final
class Cost:
    """The estimate of one operation.

    Example::

        cost_of(schema, operation, {}).of({"first": 10})
    """

    def __init__(self, fixed: int, lists: Sequence[_List]) -> None:
        self._fixed = fixed
        self._lists = lists

    def of(self, variables: Variables, most: Most | None = None) -> int:
        """Return the most values that the answer is expected to have.

        :param most: of each list; without it, all that is asked for is taken to be there.
        """
        total = self._fixed
        for each in self._lists:
            items = each.items(variables)
            if most is not None:
                items = min(items, max(1, most(each.field, each.workflow_id(variables))))
            total += each.values * items
        return total


def cost_of(schema: GraphQLSchema, operation: OperationDefinitionNode, fragments: _Fragments) -> Cost:
    """Return the estimate of a valid operation.

    :param fragments: of its document, by name.
    """
    root = schema.get_root_type(operation.operation)
    if root is None:
        return Cost(1, ())
    terms = _Estimate(schema, fragments).roots(operation.selection_set, root)
    return Cost(
        sum(each for each in terms if isinstance(each, int)),
        [each for each in terms if isinstance(each, _List)],
    )


_Fragments: TypeAlias = Mapping[str, FragmentDefinitionNode]


@final
class _List(NamedTuple):
    """A root field that is a list with pages.

    :ivar values: of one item.
    :ivar items: how many are asked for.
    :ivar workflow_id: its argument of that name.
    """

    field: str
    values: int
    items: Callable[[Variables], int]
    workflow_id: Callable[[Variables], str | None]


@final
class _Estimate:
    """One walk over an operation; each fragment is walked over once for each type that it is spread on."""

    def __init__(self, schema: GraphQLSchema, fragments: _Fragments) -> None:
        self._schema = schema
        self._fragments = fragments
        self._known: dict[tuple[str, str], int] = {}

    def roots(self, selections: SelectionSetNode, parent: GraphQLOutputType) -> list[int | _List]:
        """Return the values of each root field, or the list with pages that it is."""
        terms: list[int | _List] = []
        for node in selections.selections:
            if isinstance(node, FieldNode):
                field = self._field(node, parent)
                paged = field is not None and "first" in field.args
                values = self._values(node, parent, of_item=paged)
                terms.append(_list(node, values) if paged else values)
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
            times = _TIMES.get(name, _NESTED_ITEMS)
        selected = 0
        if node.selection_set is not None and is_composite_type(inner):
            selected = self._selected(node.selection_set, inner)
        return times * (1 + selected)


def _list(node: FieldNode, values: int) -> _List:
    given = {each.name.value: each.value for each in node.arguments or ()}

    def items(variables: Variables) -> int:
        found = _value(given.get("first"), variables)
        return max(1, min(found, PAGE_ITEMS)) if type(found) is int else PAGE_ITEMS

    def workflow_id(variables: Variables) -> str | None:
        found = _value(given.get("workflowId"), variables)
        return found if isinstance(found, str) else None

    return _List(node.name.value, values, items, workflow_id)


def _value(node: ValueNode | None, variables: Variables) -> object:
    match node:
        case VariableNode():
            return variables.get(node.name.value)
        case IntValueNode():
            return int(node.value[:10])
        case StringValueNode():
            return node.value
        case _:
            return None
