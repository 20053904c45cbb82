"""The reach of a principal: what a policy lets it read, write and administer, and the fields open to it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import final

from graphql import GraphQLInputObjectType, GraphQLInputType, GraphQLObjectType, get_named_type

from circuit_breaker_server.access import fields, streams
from circuit_breaker_server.access.input_references import REFERENCES
from circuit_breaker_server.graphql.schema import load_schema
from circuit_breaker_server.security.policy import Policy, Standing
from circuit_breaker_server.security.rights import Rights
from circuit_breaker_server.security.scopes import ACTIONS, KINDS, Action, Kind

__all__ = ["Reach", "reach_of"]


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Reach:
    """Reach of one principal.

    :ivar tenant: ``"*"`` for every tenant, ``None`` for none.
    :ivar kinds: by kind and action: names and patterns, each action with those of the actions that imply it.
    :ivar fields: by ``queries``, ``mutations``, ``subscriptions``: the fields that are open with some
        arguments, each with the scopes that its inputs take, by the path of the input.
    :ivar totals: how many fields there are of each.

    Example::

        reach_of(Policy.load(Path("policy.toml")), "user-7").fields["queries"]
    """

    principal: str
    standing: Standing
    tenant: str | None
    kinds: Mapping[str, Mapping[str, list[str]]]
    fields: Mapping[str, Mapping[str, Mapping[str, str]]]
    totals: Mapping[str, int]

    def as_json(self) -> dict[str, object]:
        """Return it as JSON values."""
        return {
            "principal": self.principal,
            "standing": self.standing,
            "tenant": self.tenant,
            "kinds": self.kinds,
            **self.fields,
        }


def reach_of(policy: Policy, principal: str) -> Reach:
    """Tell what a principal can reach by a policy; one that is not let in reaches no field."""
    standing, rights = policy.standing(principal), policy.rights_of(principal)
    schema = load_schema()
    roots = {
        "queries": schema.query_type,
        "mutations": schema.mutation_type,
        "subscriptions": schema.subscription_type,
    }
    return Reach(
        principal=principal,
        standing=standing,
        tenant=rights.tenant,
        kinds={kind: {action: _names(rights, kind, action) for action in ACTIONS} for kind in KINDS},
        fields={
            name: {
                field: dict(_references(root, field))
                for field in root.fields
                if not policy.is_disabled(principal) and _is_open(name, field, rights, principal)
            }
            for name, root in roots.items()
            if root is not None
        },
        totals={name: len(root.fields) for name, root in roots.items() if root is not None},
    )


def _is_open(root: str, field: str, rights: Rights, principal: str) -> bool:
    if root == "subscriptions":
        return streams.is_open(field, rights)
    rules = fields.QUERY_RULES if root == "queries" else fields.MUTATION_RULES
    return fields.is_open(rules[field], rights, principal)


def _references(root: GraphQLObjectType, field: str) -> Iterator[tuple[str, str]]:
    """Yield the inputs of a field that refer to something, by their paths, with the scopes that they take."""
    for name, argument in root.fields[field].args.items():
        yield from _references_in(f"{root.name}.{field}.{name}", name, argument.type, ())


def _references_in(
    input_: str, path: str, type_: GraphQLInputType, outer: tuple[str, ...]
) -> Iterator[tuple[str, str]]:
    if input_ in REFERENCES:
        yield path, REFERENCES[input_]
    inner = get_named_type(type_)
    if isinstance(inner, GraphQLInputObjectType) and inner.name not in outer:
        for name, each in inner.fields.items():
            yield from _references_in(
                f"{inner.name}.{name}", f"{path}.{name}", each.type, (*outer, inner.name)
            )


def _names(rights: Rights, kind: Kind, action: Action) -> list[str]:
    names, globs = rights.part(kind, action)
    return sorted(names) + sorted(globs)
