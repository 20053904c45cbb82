"""The tables of all root fields: by name, the function of the engine that answers a query or mutation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from circuit_breaker_server.graphql.roots import agents, analytics, llm, mcp, nats, rules, workflows
from circuit_breaker_server.graphql.roots.arguments import List, Mutation, Query

__all__ = ["LISTS", "MUTATIONS", "PAGES", "QUERIES"]

_DOMAINS = (workflows, rules, nats, agents, llm, analytics, mcp)

PAGES: Final = mcp.PAGES

LISTS: Final[Mapping[str, List]] = {
    name: items for domain in (workflows, rules, nats, agents, llm) for name, items in domain.LISTS.items()
}
"""The lists that take ``first`` and ``after``."""

QUERIES: Mapping[str, Query] = {
    "health": lambda _engine, _given: "ok",
    **{name: query for domain in _DOMAINS for name, query in domain.QUERIES.items()},
}

MUTATIONS: Mapping[str, Mutation] = {
    name: mutation for domain in _DOMAINS for name, mutation in domain.MUTATIONS.items()
}
