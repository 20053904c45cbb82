"""Find the protected objects that arguments name: the objects whose permissions are checked."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, TypeAlias, final

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


@final
@dataclass(frozen=True, slots=True)
class Thing:
    """A protected object: its kind, names and tenant, as scopes name it.

    :ivar names: its names in scopes of its kind: one of them that is allowed is enough.
    :ivar tenant: its tenant; ``None`` if it belongs to no tenant.
    :ivar needs_all: all of its names have to be allowed.

    Example::

        Thing("workflow", ("wf_1",)).may(rights, "read")
    """

    kind: Kind
    names: tuple[str, ...]
    tenant: str | None = None
    needs_all: bool = False

    def may(self, rights: Rights, action: Action) -> bool:
        """Tell whether these rights allow an action on it."""
        if self.tenant is not None and not rights.in_tenant(self.tenant):
            return False
        allowed = (rights.allows(self.kind, action, name) for name in self.names)
        return all(allowed) if self.needs_all else any(allowed)


@final
@dataclass(frozen=True, slots=True)
class Find:
    """Find the object that arguments name.

    :ivar kind: the kind of the object.
    :ivar find: returns ``None`` where the arguments name nothing.
    :ivar prefix: the prefix of the names of such objects, where a kind has several sorts of names.
    :ivar is_looked_up: whether an id is given in any case, and ``None`` means that nothing has it.

    Example::

        named("workflow", "workflowId")(engine, {"workflowId": "wf_1"})
    """

    kind: Kind
    find: Callable[[Engine, Given], Thing | None]
    prefix: str = ""
    is_looked_up: bool = False

    def __call__(self, engine: Engine, given: Given) -> Thing | None:
        """Return the object that the arguments name."""
        return self.find(engine, given)


def text(given: Given, name: str) -> str | None:
    """Return an argument, ``None`` where it is null or not there."""
    value = given.get(name)
    return None if value is None else str(value)


def given_input(find: Find) -> Find:
    """Look into the argument ``input``."""

    def found(engine: Engine, given: Given) -> Thing | None:
        inner = given.get("input")
        return find(engine, inner) if isinstance(inner, Mapping) else None

    return Find(find.kind, found, find.prefix, find.is_looked_up)


def named(kind: Kind, argument: str) -> Find:
    """Take an argument as the name itself."""

    def found(_engine: Engine, given: Given) -> Thing | None:
        name = text(given, argument)
        return None if name is None else Thing(kind, (name,))

    return Find(kind, found)


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

    return Find(kind, found, is_looked_up=True)


def agent_of_execution(argument: str) -> Find:
    """Take an agent's run by its id: it belongs to its agent."""

    def found(engine: Engine, given: Given) -> Thing | None:
        id_ = text(given, argument)
        owner = None if id_ is None else engine.agents.agent_of(id_)
        return None if owner is None else Thing("agent", (owner,))

    return Find("agent", found, is_looked_up=True)


def completion(argument: str) -> Find:
    """Take a completion by its request's id: it belongs to the principal that asked for it."""

    def found(engine: Engine, given: Given) -> Thing | None:
        id_ = text(given, argument)
        owner = None if id_ is None else engine.llm.asked_by(id_)
        return None if owner is None else Thing("llm", (owner,))

    return Find("llm", found)


def provider(argument: str) -> Find:
    """Take a provider of language models by its id: it belongs to its tenant, or to the operator."""

    def found(engine: Engine, given: Given) -> Thing | None:
        id_ = text(given, argument)
        owned = None if id_ is None else engine.llm.name_and_tenant(id_)
        return None if owned is None else Thing("provider", (owned[0],), owned[1])

    return Find("provider", found, is_looked_up=True)


def server(argument: str) -> Find:
    """Take an MCP server by its id, also one that was deleted: it belongs to its tenant."""

    def found(engine: Engine, given: Given) -> Thing | None:
        id_ = text(given, argument)
        tenant = None if id_ is None else engine.mcp.tenant_of(id_)
        return None if id_ is None or tenant is None else Thing("mcp", (f"server/{id_}",), tenant)

    return Find("mcp", found, "server/", is_looked_up=True)


def _session(engine: Engine, given: Given) -> Thing | None:
    id_ = text(given, "sessionId")
    owner = None if id_ is None else engine.mcp.owner_of_session(id_)
    if owner is None:
        return None
    user, tenant = owner
    return Thing("mcp", (f"session/{user}",), tenant)


session: Final = Find("mcp", _session, "session/", is_looked_up=True)
"""Take a session of an MCP server by its id: it belongs to its user."""


def _account(_engine: Engine, given: Given) -> Thing:
    user, project = text(given, "userId"), text(given, "projectId")
    names = [] if user is None else [f"user/{user}"]
    names += [] if project is None else [f"project/{project}"]
    return Thing("cost", tuple(names) or ("*",), needs_all=True)


account: Final = Find("cost", _account)
"""Take the accounts of costs that are named by a user, a project, or both; by neither: all of them."""
