"""A schema with every kind of type, and hypothesis strategies for documents and values that fit it."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Final

from graphql import (
    GraphQLEnumType,
    GraphQLField,
    GraphQLList,
    GraphQLNamedOutputType,
    GraphQLNonNull,
    GraphQLObjectType,
    GraphQLOutputType,
    GraphQLSchema,
    build_schema,
    get_named_type,
    is_abstract_type,
    is_composite_type,
)
from hypothesis import strategies as st

SCHEMA: Final[GraphQLSchema] = build_schema(
    """
    scalar JSON
    enum Colour { RED GREEN BLUE }
    interface Node { id: ID! name: String }
    type Part implements Node { id: ID! name: String weight: Float! count: Int }
    type Whole implements Node {
      id: ID! name: String parts: [Part!]! nodes: [Node] colours: [Colour!] grid: [[Int]!]
      flag: Boolean! data: JSON extra: JSON! either: Either part: Part node: Node!
    }
    union Either = Part | Whole
    type Query { nothing: String }
    type Subscription { wholes(id: String): Whole! maybe: Whole nodes: [Node!]! colour: Colour }
    """
)

_NAMES: Final = st.sampled_from(["a", "b", "c"])
_JSON: Final = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**40), 2**40) | st.text(max_size=5) | st.floats(-1e9, 1e9),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)
_LEAVES: Final[dict[str, st.SearchStrategy[object]]] = {
    "ID": st.text(max_size=4),
    "String": st.text(max_size=6),
    "Int": st.integers(-(2**31), 2**31 - 1),
    "Float": st.floats(allow_nan=False, allow_infinity=False) | st.integers(-1000, 1000),
    "Boolean": st.booleans(),
    "Colour": st.sampled_from(["RED", "GREEN", "BLUE"]),
    "JSON": _JSON.filter(lambda value: value is not None),
}
_UNFIT: Final[st.SearchStrategy[object]] = st.sampled_from(
    [None, True, 7, 2**40, 1.5, "", "RED", "PINK", [], {}, [None], {"__typename": "Part"}, [[3, "x"], None]]
)


@functools.cache
def values(output: GraphQLOutputType, *, unfit: bool, depth: int = 3) -> st.SearchStrategy[object]:
    """Generate values of a type; with ``unfit``, now and then one the schema does not promise."""
    fitting = _fitting(output, unfit=unfit, depth=depth)
    if not unfit:
        return fitting
    return st.integers(0, 9).flatmap(lambda roll: _UNFIT if roll == 0 else fitting)


def _fitting(output: GraphQLOutputType, *, unfit: bool, depth: int) -> st.SearchStrategy[object]:
    if isinstance(output, GraphQLNonNull):
        return _fitting(output.of_type, unfit=unfit, depth=depth)
    if isinstance(output, GraphQLList):
        size = 2 if depth > 0 else 0
        filled = st.lists(values(output.of_type, unfit=unfit, depth=depth - 1), max_size=size)
        return filled if isinstance(output.of_type, GraphQLNonNull) else filled | st.just([None])
    named = get_named_type(output)
    if isinstance(named, GraphQLObjectType):
        return _object(named, unfit=unfit, depth=depth)
    if is_abstract_type(named):
        # At the bottom only what does not nest further.
        types = [t for t in SCHEMA.get_possible_types(named) if depth > 0 or t.name == "Part"]
        return st.sampled_from(types).flatmap(lambda t: _object(t, unfit=unfit, depth=depth))
    return _LEAVES[named.name]


@functools.cache
def _object(type_: GraphQLObjectType, *, unfit: bool, depth: int) -> st.SearchStrategy[object]:
    required: dict[str, st.SearchStrategy[object]] = {"__typename": st.just(type_.name)}
    optional: dict[str, st.SearchStrategy[object]] = {}
    for name, field in type_.fields.items():
        item = st.deferred(_later(field.type, unfit=unfit, depth=depth - 1))
        if isinstance(field.type, GraphQLNonNull):
            required[name] = item
        elif depth > 0:
            optional[name] = item | st.none()
    return st.fixed_dictionaries(required, optional=optional)


def _later(output: GraphQLOutputType, *, unfit: bool, depth: int) -> Callable[[], st.SearchStrategy[object]]:
    return lambda: values(output, unfit=unfit, depth=depth)


_DIRECTIVES: Final = st.sampled_from(
    ["", "", "", " @include(if: $yes)", " @skip(if: $yes)", " @skip(if: $no)", " @include(if: false)"]
)


@st.composite
def selections(draw: st.DrawFn, type_: GraphQLNamedOutputType, depth: int = 3) -> str:
    """Generate a selection set of a composite type: aliases, fragments, directives."""
    parts = [draw(_selection(type_, depth)) for _ in range(draw(st.integers(1, 4)))]
    return "{ " + " ".join(parts) + " }"


@st.composite
def _selection(draw: st.DrawFn, type_: GraphQLNamedOutputType, depth: int) -> str:
    kind = draw(st.sampled_from(["field"] * 5 + ["inline", "bare", "spread"]))
    directive = draw(_DIRECTIVES)
    if kind == "spread" and type_.name in ("Part", "Node", "Whole"):
        return f"...On{type_.name}{directive}"
    if kind == "inline" and depth > 0:
        narrower = [type_]
        if is_abstract_type(type_):
            narrower += [*SCHEMA.get_possible_types(type_)]
        elif type_.name in ("Part", "Whole"):
            narrower += [_named("Node")]
        on = draw(st.sampled_from(narrower))
        return f"... on {on.name}{directive} {draw(selections(on, depth - 1))}"
    if kind == "bare" and depth > 0:
        return f"...{directive} {draw(selections(type_, depth - 1))}"
    fields: dict[str, GraphQLField] = dict(getattr(type_, "fields", {}))
    nested = {name for name, field in fields.items() if is_composite_type(get_named_type(field.type))}
    names = [*sorted(fields.keys() - (nested if depth <= 0 else set())), "__typename"]
    name = draw(st.sampled_from(names))
    # One alias per field and type: documents that ask for two things under one name are not valid.
    alias = f"{draw(_NAMES)}_{name}: " if draw(st.booleans()) else ""
    inner = ""
    if name in nested:
        inner = " " + draw(selections(_named(get_named_type(fields[name].type).name), depth - 1))
    return f"{alias}{name}{directive}{inner}"


@st.composite
def documents(draw: st.DrawFn) -> str:
    """Generate a subscription with the fragments it may spread."""
    root = SCHEMA.subscription_type
    assert root is not None
    name, field = draw(st.sampled_from(sorted(root.fields.items())))
    alias = draw(st.sampled_from(["", "renamed: "]))
    named = get_named_type(field.type)
    inner = "" if isinstance(named, GraphQLEnumType) else draw(selections(named))
    fragments = "".join(
        f" fragment On{type_name} on {type_name} {draw(selections(_named(type_name), 0))}"
        for type_name in ("Part", "Node", "Whole")
    )
    return f"subscription S($yes: Boolean!, $no: Boolean! = false) {{ {alias}{name} {inner} }}{fragments}"


def _named(name: str) -> GraphQLNamedOutputType:
    found = SCHEMA.type_map[name]
    assert is_composite_type(found)
    return found
