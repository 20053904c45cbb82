"""Filter the events of a stream by permission: the caller must be allowed to read each event's object.

Callers that see the same events share a :class:`View`, and with it a channel: an event is checked once for
all of them.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeAlias, final

from circuit_breaker_server.access.protected_objects import (
    Find,
    Given,
    Thing,
    agent,
    agent_of_execution,
    completion,
    named,
    nats_of_workflow,
    resource,
    server,
)
from circuit_breaker_server.engine.engine import Engine
from circuit_breaker_server.engine.errors import EngineError, ErrorCode
from circuit_breaker_server.security.rights import EVERY_TENANT, Rights
from circuit_breaker_server.security.scopes import Kind

__all__ = ["EVERYTHING_SEEN", "STREAMS", "View", "Views", "is_open", "withheld_from"]

# Any: an event's value is JSON.
_Value: TypeAlias = Mapping[str, Any]

SEQUENCE: Final = ("log", "read", "sequence")
"""The scope that shows numbers of the event log: they reveal how much other callers do."""


@final
@dataclass(frozen=True, slots=True)
class View:
    """The filter of one stream for callers with the same rights.

    :ivar key: equal for views that let the same events through.
    :ivar permits: tells from an event's value whether the caller may see it; ``None``: they may see all.
    :ivar withheld: scopes that the caller lacks, whose fields are left empty.
    :ivar hides: the arguments name an object that the caller may not read: it seems not to exist.

    Example::

        View(key=None, permits=None)
    """

    key: Hashable
    permits: Callable[[_Value], bool] | None
    withheld: frozenset[str] = frozenset()
    hides: bool = False


EVERYTHING_SEEN: Final = View(None, None)


@dataclass(frozen=True, slots=True)
class _Stream:
    """The objects whose read permission a stream needs.

    :ivar of_event: returns the object of an event; ``None``: only callers that may read all see the event.
    :ivar of_arguments: find the objects that arguments name: the caller must be allowed to read all of them.
    :ivar prefix: the prefix of the names of its events' objects, where the kind has several sorts of names.
    """

    kind: Kind
    of_event: Callable[[Engine, _Value], Thing | None]
    of_arguments: tuple[Find, ...]
    prefix: str = ""


def _in_workflow(_engine: Engine, value: _Value) -> Thing:
    return Thing("workflow", (value["workflowId"],))


def _in_log(_engine: Engine, value: _Value) -> Thing:
    return Thing("nats", (value["resource"]["workflowId"],))


def _of_agent(_engine: Engine, value: _Value) -> Thing:
    return Thing("agent", (value["agentId"],))


def _of_completion(engine: Engine, value: _Value) -> Thing | None:
    owner = engine.llm.asked_by(value["requestId"])
    return None if owner is None else Thing("llm", (owner,))


def _of_account(_engine: Engine, value: _Value) -> Thing:
    user, project = value["userId"], value["projectId"]
    names = () if user is None else (f"user/{user}",)
    return Thing("cost", names if project is None else (*names, f"project/{project}"))


def _of_server(engine: Engine, value: _Value) -> Thing | None:
    id_ = value["serverId"]
    tenant = engine.mcp.tenant_of(id_)
    return None if tenant is None else Thing("mcp", (f"server/{id_}",), tenant)


def _of_session(_engine: Engine, value: _Value) -> Thing:
    session = value["session"]
    return Thing("mcp", (f"session/{session['userId']}",), session["server"]["tenantId"])


STREAMS: Final[Mapping[str, _Stream]] = {
    "resourceUpdates": _Stream(
        "workflow", _in_workflow, (resource("resourceId"), named("workflow", "workflowId"))
    ),
    "workflowEvents": _Stream("workflow", _in_workflow, (named("workflow", "workflowId"),)),
    "natsResourceStream": _Stream("nats", _in_log, (nats_of_workflow(),)),
    "agentExecutionStream": _Stream(
        "agent", _of_agent, (agent("agentId"), agent_of_execution("executionId"), resource("resourceId"))
    ),
    "llmStream": _Stream("llm", _of_completion, (completion("requestId"),)),
    "costUpdates": _Stream("cost", _of_account, ()),
    "mcpServerStatusUpdates": _Stream("mcp", _of_server, (server("serverId"),), "server/"),
    "mcpCapabilityUpdates": _Stream("mcp", _of_server, (server("serverId"),), "server/"),
    "mcpSessionEvents": _Stream("mcp", _of_session, (server("serverId"),), "session/"),
}
"""Every subscription field."""


def is_open(field: str, rights: Rights) -> bool:
    """Tell whether there are arguments with which a principal may see events of a subscription."""
    return rights.allows_some(STREAMS[field].kind, "read", STREAMS[field].prefix)


def withheld_from(rights: Rights) -> frozenset[str]:
    """Return the scopes with fields of their own that these rights lack."""
    return frozenset() if rights.allows(*SEQUENCE) else frozenset((":".join(SEQUENCE),))


@final
class Views:
    """Make views, and share them among callers with the same rights.

    Example::

        view = Views(engine).of(rights, "resourceUpdates", {"resourceId": "r1"})
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._whole = functools.lru_cache(maxsize=4096)(self._make)

    def of(self, rights: Rights, field: str, given: Given) -> View:
        """Return the view of a subscription for these rights.

        :raises EngineError: ``FORBIDDEN``: the rights allow no event, with any arguments.
        """
        if rights.is_unlimited:
            return EVERYTHING_SEEN
        stream = STREAMS[field]
        if not rights.allows_any(stream.kind, "read"):
            raise EngineError(
                ErrorCode.FORBIDDEN,
                f"{field} needs a scope such as {stream.kind}:read:*; ask who keeps the policy",
            )
        view = self._whole(rights, field)
        for find in stream.of_arguments:
            thing = find(self._engine, given)
            if thing is not None and not thing.may(rights, "read"):
                return View(("hidden", view.key), _never, view.withheld, hides=True)
        return view

    def _make(self, rights: Rights, field: str) -> View:
        stream, engine = STREAMS[field], self._engine
        withheld = withheld_from(rights)
        tenant = rights.tenant if stream.kind == "mcp" else EVERY_TENANT
        if tenant == EVERY_TENANT and rights.allows_all(stream.kind, "read"):
            return View(withheld or None, None, withheld)

        def permits(value: _Value) -> bool:
            thing = stream.of_event(engine, value)
            return thing is not None and thing.may(rights, "read")

        return View((rights.part(stream.kind, "read"), tenant, withheld), permits, withheld)


def _never(_value: _Value) -> bool:
    return False
