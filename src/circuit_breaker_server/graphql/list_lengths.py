"""Count the items that a list can have at most for a caller, to estimate the cost of an operation."""

from __future__ import annotations

import itertools
from collections.abc import Iterable

from circuit_breaker_server.engine.engine import Engine
from circuit_breaker_server.engine.paging import PAGE_ITEMS
from circuit_breaker_server.security.rights import Rights
from circuit_breaker_server.security.scopes import Kind

__all__ = ["how_many"]


def how_many(field: str, workflow_id: str | None, engine: Engine, rights: Rights) -> int:
    """Tell how many items of a list there are at most for these rights; a page of them counts."""
    ids: Iterable[str]
    match field:
        case "resources" | "resourcesInState" if workflow_id is not None:
            is_seen = rights.allows("workflow", "read", workflow_id)
            return min(PAGE_ITEMS, engine.workflows.count_resources(workflow_id)) if is_seen else 0
        case "workflows":
            ids = _seen(engine.workflows.workflow_ids(), "workflow", rights)
        case "resources" | "resourcesInState":
            seen = _seen(engine.workflows.workflow_ids(), "workflow", rights)
            return min(PAGE_ITEMS, sum(map(engine.workflows.count_resources, seen)))
        case "rules":
            ids = _seen(engine.rules.ids(), "rule", rights)
        case "agents":
            ids = _seen(engine.agents.ids(), "agent", rights)
        case "llmProviders":
            return engine.llm.count()
        case "stateAgentConfigs":
            return min(PAGE_ITEMS, engine.agents.count_configs())
        case "resourceExecutions":
            return min(PAGE_ITEMS, engine.agents.count_executions())
        case _:
            raise ValueError(f"nobody knows how long the list {field} is")
    return sum(1 for _ in itertools.islice(ids, PAGE_ITEMS))


def _seen(ids: Iterable[str], kind: Kind, rights: Rights) -> Iterable[str]:
    return (
        ids if rights.allows_all(kind, "read") else (id_ for id_ in ids if rights.allows(kind, "read", id_))
    )
