"""Authorize the root fields of queries and mutations.

An object that a caller may not read is hidden: the server answers as if it did not exist, and lists leave it
out. An object that a caller may read and not change is refused with ``FORBIDDEN``, as is any cost account:
the names of users and projects are no secret. A field without a rule here is refused.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeAlias, cast, final

from circuit_breaker_server.access.protected_objects import (
    Find,
    Given,
    Thing,
    account,
    agent,
    agent_of_execution,
    given_input,
    named,
    provider,
    resource,
    server,
    session,
    text,
)
from circuit_breaker_server.engine.engine import Engine
from circuit_breaker_server.engine.errors import EngineError, ErrorCode, shown
from circuit_breaker_server.security.rights import Rights
from circuit_breaker_server.security.scopes import Action, Kind

__all__ = ["MUTATION_RULES", "QUERY_RULES", "Rule", "Sees", "Verdict", "is_open", "judge", "keep", "names_of"]

# Any: an answer is JSON.
_Item: TypeAlias = Mapping[str, Any]
Sees: TypeAlias = Callable[[str, str], bool]
"""Of a page of MCP servers or sessions: whether there is, for who asks, the one of this name and tenant."""


@final
@dataclass(frozen=True, slots=True)
class Rule:
    """The permissions that a root field needs.

    :ivar action: the action of the field on the objects that its arguments name.
    :ivar things: finds those objects; the action must be allowed for each that exists.
    :ivar some: kinds: the caller needs a scope for at least one object of each kind, whichever it is.
    :ivar makes: the kind of an object that the field creates under a name of the server's choice: the caller
        needs a scope with a pattern, as a scope for a name, or for ``self``, does not cover a new name.
    :ivar item: the object of an item of the answer: items that the caller may not read are left out.
    :ivar page: makes the filter of the objects of which the answer is a page.
    :ivar lists: the kind of those items, and the prefix of their names: without a scope for any of them a
        query answers an empty list.
    :ivar check: refuses what the other attributes cannot express.
    :ivar passes: tells which rights, of which principal, pass ``check`` with some arguments; ``None``: all.
    """

    action: Action = "read"
    things: tuple[Find, ...] = ()
    some: tuple[Kind, ...] = ()
    makes: Kind | None = None
    item: Callable[[_Item], Thing] | None = None
    page: Callable[[Rights], Sees] | None = None
    lists: tuple[Kind, str] | None = None
    check: Callable[[Rights, Given, str], None] | None = None
    passes: Callable[[Rights, str], bool] | None = None


class Verdict(enum.Enum):
    """The decision on a requested root field."""

    ALLOWED = enum.auto()
    HIDDEN = enum.auto()
    """The arguments name an object that, for this caller, does not exist."""


def judge(rule: Rule, field: str, engine: Engine, rights: Rights, given: Given, *, asker: str) -> Verdict:
    """Decide on a root field with its arguments.

    :param asker: the id of the principal.
    :raises EngineError: ``FORBIDDEN``.
    """
    refused: Thing | None = None
    for find in rule.things:
        thing = find(engine, given)
        if thing is None:
            if find.is_looked_up and len(rule.things) == 1:
                # As for what is not to be seen: the way to the answer, and so its time, is the same.
                return Verdict.HIDDEN
            continue
        if thing.may(rights, rule.action):
            continue
        if thing.kind == "cost":  # whose accounts there are is known to all: their users' and projects' names
            raise _forbidden(field, thing.kind, rule.action, thing.names[0])
        if not thing.may(rights, "read"):
            return Verdict.HIDDEN
        refused = thing
    if refused is not None:
        raise _forbidden(field, refused.kind, rule.action, refused.names[0])
    for kind in rule.some:
        if not rights.allows_any(kind, rule.action):
            raise _forbidden(field, kind, rule.action, "*")
    if rule.makes is not None and not rights.allows_pattern(rule.makes, rule.action):
        raise _forbidden(field, rule.makes, rule.action, "*")
    if rule.check is not None:
        rule.check(rights, given, asker)
    return Verdict.ALLOWED


def is_open(rule: Rule, rights: Rights, asker: str) -> bool:
    """Tell whether a field of this rule is allowed to a principal with some arguments.

    :func:`judge` decides with the arguments; a list counts as open where an item of it may be seen.

    :param asker: the id of the principal.
    """
    needed = [(find.kind, rule.action, find.prefix) for find in rule.things]
    needed += [(kind, rule.action, "") for kind in rule.some]
    if rule.lists is not None:
        needed.append((rule.lists[0], "read", rule.lists[1]))
    return (
        all(rights.allows_some(kind, action, prefix) for kind, action, prefix in needed)
        and (rule.makes is None or rights.allows_pattern(rule.makes, rule.action))
        and (rule.passes is None or rule.passes(rights, asker))
    )


def names_of(rule: Rule, engine: Engine, given: Given) -> list[str]:
    """Return the kinds and names of the objects that a root field's arguments name."""
    found = (find(engine, given) for find in rule.things)
    return [f"{thing.kind} {name}" for thing in found if thing is not None for name in thing.names]


def keep(rule: Rule, rights: Rights, answer: object) -> object:
    """Leave out of a list the items that the caller may not read."""
    of_item = rule.item
    if of_item is None:
        return answer

    def is_seen(item: _Item) -> bool:
        return of_item(item).may(rights, "read")

    return [item for item in cast("Iterable[_Item]", answer) if is_seen(item)]


def _forbidden(field: str, kind: str, action: str, name: str) -> EngineError:
    return EngineError(
        ErrorCode.FORBIDDEN, f"{field} needs the scope {kind}:{action}:{name[:80]}; ask who keeps the policy"
    )


def _by(kind: Kind, key: str) -> Callable[[_Item], Thing]:
    return lambda item: Thing(kind, (item[key],))


def _servers_seen(rights: Rights) -> Sees:
    return lambda id_, tenant: Thing("mcp", (f"server/{id_}",), tenant).may(rights, "read")


def _sessions_seen(rights: Rights) -> Sees:
    return lambda user, tenant: Thing("mcp", (f"session/{user}",), tenant).may(rights, "read")


def _find_session_to_be(engine: Engine, given: Given) -> Thing | None:
    id_, user = text(given, "serverId"), text(given, "userId")
    tenant = None if id_ is None else engine.mcp.tenant_of(id_)
    return None if tenant is None else Thing("mcp", (f"session/{user}",), tenant)


_session_to_be: Final = Find("mcp", _find_session_to_be, "session/", is_looked_up=True)
"""Take the session that a sign-in makes, by its user and its MCP server."""


def _check_completion(rights: Rights, given: Given, asker: str) -> None:
    """Refuse a completion for another user than the caller, or one that others would pay for."""
    if not rights.allows("llm", "write", asker):
        raise _forbidden("llmChatCompletion", "llm", "write", asker or "*")
    inner = given.get("input")
    inner = inner if isinstance(inner, Mapping) else {}
    user, project = text(inner, "user"), text(inner, "projectId")
    if user not in (None, asker) and not rights.allows("cost", "write", f"user/{user}"):
        raise _forbidden("llmChatCompletion", "cost", "write", f"user/{user}")
    if project is not None and not rights.allows("cost", "write", f"project/{project}"):
        raise _forbidden("llmChatCompletion", "cost", "write", f"project/{project}")


def _check_provider(rights: Rights, given: Given, _asker: str) -> None:
    """Refuse a provider by its name alone: whether there is such a one makes no difference."""
    inner = given.get("input")
    name = text(inner, "name") or "" if isinstance(inner, Mapping) else ""
    if not rights.allows("provider", "admin", name):
        raise _forbidden("configureLlmProvider", "provider", "admin", name)


def _check_conditions(rights: Rights, given: Given, _asker: str) -> None:
    """Refuse activities with rules that the caller may not read: what comes of them tells what they say.

    By the names alone: whether there is such a rule makes no difference.
    """
    inner = given.get("input")
    activities = inner.get("activities") if isinstance(inner, Mapping) else None
    for activity in cast("Iterable[_Item]", activities or ()):
        for condition in cast("Iterable[str]", activity.get("conditions") or ()):
            kind, _, name = condition.removeprefix("not:").partition(":")
            if kind == "rule" and not rights.allows("rule", "read", name):
                raise _forbidden("createWorkflow", "rule", "read", name)


def _check_state_config(rights: Rights, _given: Given, _asker: str) -> None:
    """Refuse a configuration unless the caller may change every workflow.

    It holds for the state in all workflows: its agent reads the data of their resources, and
    executes activities on them.
    """
    if not rights.allows_all("workflow", "write"):
        raise _forbidden("createStateAgentConfig", "workflow", "write", "*")


def _check_new_server(rights: Rights, given: Given, _asker: str) -> None:
    if not rights.allows_some("mcp", "admin", "server/"):
        raise _forbidden("createMcpServer", "mcp", "admin", "server/*")  # of sessions is not enough
    inner = given.get("input")
    tenant = text(inner, "tenantId") if isinstance(inner, Mapping) else None
    if tenant is None or not rights.in_tenant(tenant):
        raise EngineError(
            ErrorCode.FORBIDDEN, f"createMcpServer is not for you in tenant {shown(str(tenant))}"
        )


_workflow = named("workflow", "workflowId")
_config_of_agent = given_input(named("agent", "agentId"))
_in_input = {
    name: given_input(find)
    for name, find in {
        "workflow": _workflow,
        "resource": resource("resourceId"),
        "nats workflow": named("nats", "workflowId"),
        "nats resource": resource("resourceId", kind="nats"),
        "server": server("serverId"),
        "session": _session_to_be,
        "account": account,
        "rule": named("rule", "ruleId"),
    }.items()
}

QUERY_RULES: Final[Mapping[str, Rule]] = {
    "health": Rule(),
    "workflow": Rule(things=(named("workflow", "id"),)),
    "workflows": Rule(item=_by("workflow", "id"), lists=("workflow", "")),
    "resource": Rule(things=(resource("id"),)),
    "resources": Rule(things=(_workflow,), item=_by("workflow", "workflowId"), lists=("workflow", "")),
    "availableActivities": Rule(things=(resource("resourceId"),)),
    "state": Rule(things=(_workflow,)),
    "workflowStates": Rule(things=(_workflow,)),
    "rule": Rule(things=(named("rule", "id"),)),
    "rules": Rule(item=_by("rule", "id"), lists=("rule", "")),
    "workflowRules": Rule(things=(_workflow,), item=_by("rule", "id"), lists=("rule", "")),
    "natsResource": Rule(things=(resource("id", kind="nats"),)),
    "resourcesInState": Rule(things=(named("nats", "workflowId"),)),
    "findResource": Rule(things=(named("nats", "workflowId"), resource("resourceId", kind="nats"))),
    "agent": Rule(things=(agent(),)),
    "agents": Rule(item=_by("agent", "id"), lists=("agent", "")),
    "stateAgentConfigs": Rule(item=_by("agent", "agentId"), lists=("agent", "")),
    "agentExecution": Rule(things=(agent_of_execution("id"),)),
    "resourceExecutions": Rule(
        things=(resource("resourceId"),), item=_by("agent", "agentId"), lists=("agent", "")
    ),
    "budgetStatus": Rule(things=(account,)),
    "costAnalytics": Rule(things=(given_input(account),)),
    "llmProviders": Rule(
        item=lambda item: Thing("provider", (item["name"],), item["tenant"]), lists=("provider", "")
    ),
    "llmProvider": Rule(things=(provider("id"),)),
    "mcpServers": Rule(page=_servers_seen, lists=("mcp", "server/")),
    "mcpServer": Rule(things=(server("id"),)),
    "mcpServersByTenant": Rule(page=_servers_seen, lists=("mcp", "server/")),
    "mcpOAuthProviders": Rule(some=("mcp",)),
    "mcpServerCapabilities": Rule(things=(server("serverId"),)),
    "mcpServerHealth": Rule(things=(server("serverId"),)),
    "mcpSessions": Rule(page=_sessions_seen, lists=("mcp", "session/")),
}
"""Every root field of queries."""

MUTATION_RULES: Final[Mapping[str, Rule]] = {
    "createWorkflow": Rule("admin", makes="workflow", check=_check_conditions),
    "createResource": Rule("write", (_in_input["workflow"],)),
    "executeActivity": Rule("write", (_in_input["resource"],)),
    "createState": Rule("admin", (_in_input["workflow"],)),
    "updateState": Rule("admin", (_workflow,)),
    "createRule": Rule("admin", makes="rule"),
    "updateRule": Rule("admin", (named("rule", "id"),)),
    "deleteRule": Rule("admin", (named("rule", "id"),)),
    "evaluateRule": Rule("read", (_in_input["rule"],)),
    "createWorkflowInstance": Rule("write", (_in_input["nats workflow"],)),
    "executeActivityWithNats": Rule("write", (_in_input["nats resource"],)),
    "createAgent": Rule("admin", makes="agent"),
    "createStateAgentConfig": Rule(
        "write",
        (_config_of_agent,),
        check=_check_state_config,
        passes=lambda rights, _: rights.allows_all("workflow", "write"),
    ),
    "triggerStateAgents": Rule("write", (_in_input["resource"],), item=_by("agent", "agentId")),
    "cancelAgentExecution": Rule("write", (agent_of_execution("executionId"),)),
    "setBudget": Rule("admin", (_in_input["account"],)),
    "applyCredit": Rule("admin", (account,)),
    "llmChatCompletion": Rule(
        "write", check=_check_completion, passes=lambda rights, asker: rights.allows("llm", "write", asker)
    ),
    "configureLlmProvider": Rule(
        "admin", check=_check_provider, passes=lambda rights, _: rights.allows_any("provider", "admin")
    ),
    "createMcpServer": Rule(
        "admin",
        some=("mcp",),
        check=_check_new_server,
        passes=lambda rights, _: rights.allows_some("mcp", "admin", "server/"),
    ),
    "updateMcpServer": Rule("admin", (server("id"),)),
    "deleteMcpServer": Rule("admin", (server("id"),)),
    "configureMcpOAuth": Rule("admin", (_in_input["server"],)),
    "configureMcpJwt": Rule("admin", (_in_input["server"],)),
    "initiateMcpOAuth": Rule("write", (_in_input["session"],)),
    "completeMcpOAuth": Rule("write", (_in_input["session"],)),
    "authenticateMcpJwt": Rule("write", (_in_input["session"],)),
    "refreshMcpSession": Rule("write", (session,)),
    "revokeMcpSession": Rule("write", (session,)),
    "registerMcpCapabilities": Rule("admin", (_in_input["server"],)),
    "toggleMcpServer": Rule("admin", (server("id"),)),
    "testMcpConnection": Rule("write", (server("serverId"),)),
}
"""Every root field of mutations."""
