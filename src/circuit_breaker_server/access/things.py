"""What rights are about: the things that arguments and values name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias, final

from circuit_breaker_server.engine.engine import Engine
from circuit_breaker_server.security.rights import Rights
from circuit_breaker_server.security.scopes import Action, Kind

__all__ = [
    "Find",
    "Given",
    "Thing",
    "account",
    "agent",
    "agent_of_execution",
    "completion",
    "given_input",
    "named",
    "nats_of_workflow",
    "provider",
    "resource",
    "server",
    "session",
    "text",
]

Given: TypeAlias = Mapping[str, object]
Find: TypeAlias = Callable[[Engine, Given], "Thing | None"]
"""From arguments to what they name; ``None``: they name nothing."""


@final
@dataclass(frozen=True, slots=True)
class Thing:
    """Something that a scope may be about.

    :ivar names: its names in scopes of its kind: one of them that is allowed is enough.
    :ivar tenant: whose it is; ``None`` for what belongs to no tenant.
    :ivar needs_all: all of its names have to be allowed.

    Example::

        Thing("workflow", ("wf_1",)).may(rights, "read")
    """

    kind: Kind
    names: tuple[str, ...]
    tenant: str | None = None
    needs_all: bool = False

    def may(self, rights: Rights, action: Action) -> bool:
        """Tell whether somebody may do this to it."""
        if self.tenant is not None and not rights.in_tenant(self.tenant):
            return False
        allowed = (rights.allows(self.kind, action, name) for name in self.names)
        return all(allowed) if self.needs_all else any(allowed)


def text(given: Given, name: str) -> str | None:
    """Return an argument, ``None`` where it is null or not there."""
    value = given.get(name)
    return None if value is None else str(value)


def given_input(find: Find) -> Find:
    """Look into the argument ``input``."""

    def found(engine: Engine, given: Given) -> Thing | None:
        inner = given.get("input")
        return find(engine, inner) if isinstance(inner, Mapping) else None

    return found


def named(kind: Kind, argument: str) -> Find:
    """Take an argument as the name itself."""

    def found(_engine: Engine, given: Given) -> Thing | None:
        name = text(given, argument)
        return None if name is None else Thing(kind, (name,))

    return found


def agent(argument: str = "id") -> Find:
    """Take an agent by its id."""
    return named("agent", argument)


def nats_of_workflow(argument: str = "workflowId") -> Find:
    """Take a workflow's place in the log by the workflow's id."""
    return named("nats", argument)


def resource(argument: str = "id", *, kind: Kind = "workflow") -> Find:
    """Take a resource by its id: it belongs to its workflow."""

    def found(engine: Engine, given: Given) -> Thing | None:
        id_ = text(given, argument)
        workflow = None if id_ is None else engine.workflows.owner_of(id_)
        return None if workflow is None else Thing(kind, (workflow,))

    return found


def agent_of_execution(argument: str) -> Find:
    """Take an agent's run by its id: it belongs to its agent."""

    def found(engine: Engine, given: Given) -> Thing | None:
        id_ = text(given, argument)
        owner = None if id_ is None else engine.agents.agent_of(id_)
        return None if owner is None else Thing("agent", (owner,))

    return found


def completion(argument: str) -> Find:
    """Take a completion by its request's id: it belongs to who asked for it."""

    def found(engine: Engine, given: Given) -> Thing | None:
        id_ = text(given, argument)
        owner = None if id_ is None else engine.llm.asked_by(id_)
        return None if owner is None else Thing("llm", (owner,))

    return found


def provider(argument: str) -> Find:
    """Take a provider of language models by its id: it belongs to its tenant, or to the operator."""

    def found(engine: Engine, given: Given) -> Thing | None:
        id_ = text(given, argument)
        owned = None if id_ is None else engine.llm.name_and_tenant(id_)
        return None if owned is None else Thing("provider", (owned[0],), owned[1])

    return found


def server(argument: str) -> Find:
    """Take an MCP server by its id, also one that was deleted: it belongs to its tenant."""

    def found(engine: Engine, given: Given) -> Thing | None:
        id_ = text(given, argument)
        tenant = None if id_ is None else engine.mcp.tenant_of(id_)
        return None if id_ is None or tenant is None else Thing("mcp", (f"server/{id_}",), tenant)

    return found


def session(engine: Engine, given: Given) -> Thing | None:
    """Take a session of an MCP server by its id: it belongs to its user."""
    id_ = text(given, "sessionId")
    owner = None if id_ is None else engine.mcp.owner_of_session(id_)
    if owner is None:
        return None
    user, tenant = owner
    return Thing("mcp", (f"session/{user}",), tenant)


def account(_engine: Engine, given: Given) -> Thing:
    """Take the accounts of costs that are named by a user, a project, or both; by neither: all of them."""
    user, project = text(given, "userId"), text(given, "projectId")
    names = [] if user is None else [f"user/{user}"]
    names += [] if project is None else [f"project/{project}"]
    return Thing("cost", tuple(names) or ("*",), needs_all=True)
