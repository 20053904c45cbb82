"""Generate documents over a schema with withheld fields, and values for their answers."""

from __future__ import annotations

import functools
import random
from collections.abc import Iterator
from typing import Final, cast, final

import graphql
import msgspec
from graphql import (
    GraphQLEnumType,
    GraphQLField,
    GraphQLInputObjectType,
    GraphQLInputType,
    GraphQLList,
    GraphQLNamedOutputType,
    GraphQLNamedType,
    GraphQLNonNull,
    GraphQLObjectType,
    GraphQLOutputType,
    GraphQLSchema,
    build_schema,
    get_named_type,
    is_abstract_type,
    is_composite_type,
    is_required_argument,
)
from graphql.validation import NoUnusedFragmentsRule, NoUnusedVariablesRule, specified_rules
from hypothesis import strategies as st

from circuit_breaker_server.graphql.schema import (
    REDACTION,
    Redaction,
    _redact,
    give,
    load_schema,
    schema_text,
)

__all__ = ["RULES", "SEQUENCE", "VIEWS", "Maker", "Stage", "documents", "stage_of"]

SEQUENCE: Final = "log:read:sequence"
VIEWS: Final = (frozenset[str](), frozenset((SEQUENCE,)), frozenset((SEQUENCE, "other:read:x")))
RULES: Final = [r for r in specified_rules if r not in (NoUnusedFragmentsRule, NoUnusedVariablesRule)]
NESTED: Final = """
    directive @secret on FIELD_DEFINITION
    directive @needs(scope: String!) on FIELD_DEFINITION
    scalar JSON
    interface Node { id: ID! name: String code: String }
    type Part implements Node { id: ID! name: String code: String @secret count: Int list: [String] @secret }
    type Whole implements Node {
      id: ID! name: String @needs(scope: "log:read:sequence") code: String @needs(scope: "other:read:x")
      must: String! @needs(scope: "log:read:sequence") parts: [[Part!]!]! nodes: [Node] either: Either
      json: JSON @secret deep: Part @needs(scope: "log:read:sequence") node: Node!
    }
    union Either = Part | Whole
    type Query { whole: Whole nodes: [Node!]! }
    type Subscription { whole: Whole! either: Either! }
    """
"""What our own schema has not: unions and interfaces of which fields are withheld, and whole objects."""


@final
class Stage:
    """A schema, and the same one in which nothing is withheld: it tells what has to be there."""

    def __init__(self, text: str, redacting: GraphQLSchema) -> None:
        self.redacting = redacting
        self._leading: dict[str, bool] = {}
        self.plain = build_schema(text)
        scalar = self.plain.type_map["JSON"]
        assert isinstance(scalar, graphql.GraphQLScalarType)
        scalar.coerce_output_value = give
        self.roots = [
            (kind, name)
            for kind in ("query", "mutation", "subscription")
            for name, field in self.root(kind).items()
            if self.leads_to_withheld(get_named_type(field.type))
        ]

    def root(self, kind: str) -> dict[str, GraphQLField]:
        type_ = getattr(self.redacting, f"{kind}_type")
        return {} if type_ is None else dict(type_.fields)

    def redaction(self, field: GraphQLField) -> Redaction | None:
        found = field.extensions.get(REDACTION)
        return found if isinstance(found, Redaction) else None

    def leads_to_withheld(self, type_: GraphQLNamedType) -> bool:
        known = self._leading.get(type_.name)
        if known is None:
            known = self._leading[type_.name] = any(
                self.redaction(field)
                for each in self._reachable(type_, set())
                if isinstance(each, GraphQLObjectType)
                for field in each.fields.values()
            )
        return known

    def _reachable(self, type_: GraphQLNamedType, seen: set[str]) -> Iterator[GraphQLNamedType]:
        if type_.name in seen or not is_composite_type(type_):
            return
        seen.add(type_.name)
        yield type_
        nexts = (
            self.redacting.get_possible_types(type_)
            if is_abstract_type(type_)
            else [get_named_type(field.type) for field in getattr(type_, "fields", {}).values()]
        )
        for each in nexts:
            yield from self._reachable(each, seen)


@functools.cache
def stage_of(name: str) -> Stage:
    if name == "ours":
        return Stage(schema_text(), load_schema())
    nested = build_schema(NESTED)
    scalar = nested.type_map["JSON"]
    assert isinstance(scalar, graphql.GraphQLScalarType)
    scalar.coerce_output_value = give
    _redact(nested)
    return Stage(NESTED, nested)


_DIRECTIVES: Final = st.sampled_from(
    ["", "", "", " @include(if: $yes)", " @skip(if: $yes)", " @skip(if: $no)", " @include(if: false)"]
)


def literal(type_: GraphQLInputType) -> str:
    """Write any value of an input type: what arguments say does not matter here."""
    if isinstance(type_, GraphQLNonNull):
        return literal(type_.of_type)
    if isinstance(type_, GraphQLList):
        return "[]"
    if isinstance(type_, GraphQLInputObjectType):
        given_ = {n: f for n, f in type_.fields.items() if isinstance(f.type, GraphQLNonNull)}
        return "{" + ", ".join(f"{name}: {literal(field.type)}" for name, field in given_.items()) + "}"
    if isinstance(type_, GraphQLEnumType):
        return str(next(iter(type_.values)))
    plain = {"Int": "1", "Float": "1.5", "Boolean": "true"}
    return plain.get(type_.name, '"x"')


def arguments(field: GraphQLField) -> str:
    needed = [f"{n}: {literal(a.type)}" for n, a in field.args.items() if is_required_argument(a)]
    return f"({', '.join(needed)})" if needed else ""


@st.composite
def selections(
    draw: st.DrawFn, stage: Stage, type_: GraphQLNamedType, fragments: dict[str, str], depth: int
) -> str:
    parts = [
        draw(_selection(stage, type_, fragments, depth, likely=place == 0))
        for place in range(draw(st.integers(1, 3)))
    ]
    return "{ " + " ".join(parts) + " }"


@st.composite
def _selection(
    draw: st.DrawFn,
    stage: Stage,
    type_: GraphQLNamedType,
    fragments: dict[str, str],
    depth: int,
    *,
    likely: bool,
) -> str:
    kind = draw(st.sampled_from(["field"] * 5 + ["inline", "bare", "spread"]))
    directive = "" if likely else draw(_DIRECTIVES)
    if depth > 0 and kind in ("inline", "spread"):
        narrower = [type_, *(stage.redacting.get_possible_types(type_) if is_abstract_type(type_) else ())]
        narrower += getattr(type_, "interfaces", ())
        on = draw(st.sampled_from(narrower))
        inner = draw(selections(stage, on, fragments, depth - 1))
        if kind == "inline":
            return f"... on {on.name}{directive} {inner}"
        name = f"F{len(fragments)}"
        fragments[name] = f"fragment {name} on {on.name} {inner}"
        return f"...{name}{directive}"
    if kind == "bare" and depth > 0:
        return f"...{directive} {draw(selections(stage, type_, fragments, depth - 1))}"
    fields: dict[str, GraphQLField] = dict(getattr(type_, "fields", {}))
    nested = {name for name, field in fields.items() if is_composite_type(get_named_type(field.type))}
    names = [*sorted(fields.keys() - (nested if depth <= 0 else set())), "__typename"]
    # Fields that are withheld, and ways to them, more often than others.
    ways = [
        name
        for name in names
        if name in fields
        and (stage.redaction(fields[name]) or stage.leads_to_withheld(get_named_type(fields[name].type)))
    ]
    name = draw(st.sampled_from(ways if ways and (likely or draw(st.booleans())) else names))
    alias = f"{draw(st.sampled_from('abc'))}_{name}: " if draw(st.booleans()) else ""
    inner, given_ = "", ""
    if name in fields:
        given_ = arguments(fields[name])
        if name in nested:
            inner = " " + draw(selections(stage, get_named_type(fields[name].type), fragments, depth - 1))
    return f"{alias}{name}{given_}{directive}{inner}"


@st.composite
def documents(draw: st.DrawFn, stage: Stage, kinds: tuple[str, ...]) -> tuple[str, str]:
    """Generate an operation of one root field, with its fragments; return the field's name and the text."""
    kind, name = draw(st.sampled_from([each for each in stage.roots if each[0] in kinds]))
    field = stage.root(kind)[name]
    fragments: dict[str, str] = {}
    inner = draw(selections(stage, get_named_type(field.type), fragments, 3))
    alias = draw(st.sampled_from(["", "renamed: "]))
    text = f"{kind} S($yes: Boolean!, $no: Boolean! = false) {{ {alias}{name}{arguments(field)} {inner} }}"
    return name, " ".join([text, *fragments.values()])


@final
class Maker:
    """Makes a value in which every text is another one, and its like for who may not see all of it."""

    def __init__(
        self, stage: Stage, seed: int, withheld: frozenset[str], *, unfit: bool, share: float = 0.03
    ) -> None:
        """``unfit``: so great a share of what must not be null is."""
        self._share = share
        self._stage = stage
        self._random = random.Random(seed)  # noqa: S311 (data of a test)
        self._withheld = withheld
        self._unfit = unfit
        self._count = 0
        self._is_hidden = False
        self.canaries: list[str] = []
        self.shown: list[str] = []

    def value(self, output: GraphQLOutputType, depth: int = 3) -> tuple[object, object]:
        """Return a value and what is left of it."""
        if isinstance(output, GraphQLNonNull):
            if self._unfit and self._random.random() < self._share:
                return None, None
            return self._fitting(output.of_type, depth)
        if self._random.random() < 0.1:
            return None, None
        return self._fitting(output, depth)

    def _fitting(self, output: GraphQLOutputType, depth: int) -> tuple[object, object]:
        if isinstance(output, GraphQLList):
            items = [self.value(output.of_type, depth) for _ in range(self._random.choice((1, 1, 2)))]
            return [item for item, _ in items], [left for _, left in items]
        named = cast("GraphQLNamedOutputType", output)
        if is_abstract_type(named):
            named = self._random.choice(self._stage.redacting.get_possible_types(named))
        if isinstance(named, GraphQLObjectType):
            return self._object(named, depth)
        return self._leaf(named)

    def _object(self, type_: GraphQLObjectType, depth: int) -> tuple[object, object]:
        made: dict[str, object] = {"__typename": type_.name}
        left: dict[str, object] = {"__typename": type_.name}
        for name, field in type_.fields.items():
            redaction = self._stage.redaction(field)
            is_hidden = redaction is not None and (
                redaction.scope is None or redaction.scope in self._withheld
            )
            if depth <= 0 and not is_hidden and not isinstance(field.type, GraphQLNonNull):
                made[name] = left[name] = None
                continue
            if depth < -2 and is_composite_type(get_named_type(field.type)):
                made[name] = left[name] = None  # nothing selects as deep as this
                continue
            before, self._is_hidden = self._is_hidden, self._is_hidden or is_hidden
            made[name], left[name] = self.value(field.type, depth - 1)
            self._is_hidden = before
            if is_hidden:
                left[name] = "" if isinstance(field.type, GraphQLNonNull) else None
        return made, left

    def _leaf(self, type_: GraphQLNamedType) -> tuple[object, object]:
        if isinstance(type_, GraphQLEnumType):
            name = self._random.choice(list(type_.values))
            return name, name
        number = self._random.randrange(1000)
        simple: dict[str, object] = {"Int": number, "Float": number + 0.5, "Boolean": number > 500}
        if type_.name in simple:
            return simple[type_.name], simple[type_.name]
        self._count += 1
        text = f"{'canary' if self._is_hidden else 'shown'}-{self._count}-"
        (self.canaries if self._is_hidden else self.shown).append(text)
        made: object = text
        if type_.name == "JSON":
            made = {"key": [text]}
            if self._random.random() < 0.3:
                return msgspec.Raw(msgspec.json.encode(made)), made
        elif self._unfit and self._is_hidden and self._random.random() < 0.3:
            made = [text]
        return made, made
