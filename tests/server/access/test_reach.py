"""A field is open to a principal exactly where the check of its arguments lets some arguments through."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, cast, final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from circuit_breaker_server.access import fields, streams
from circuit_breaker_server.access.fields import MUTATION_RULES, QUERY_RULES, Rule, Verdict, judge
from circuit_breaker_server.engine.engine import Engine
from circuit_breaker_server.engine.errors import EngineError
from circuit_breaker_server.security.rights import Rights
from circuit_breaker_server.security.scopes import ACTIONS, KINDS, Scope, ScopeError, parse_scope

RULES: Final = {**QUERY_RULES, **MUTATION_RULES}
NAMES: Final = ("x", "y", "me")
PATTERNS: Final = ("*", "x", "y", "self", "x*", "user/x", "user/*", "project/y", "server/x", "session/*")


def _scopes(patterns: Iterable[str]) -> Iterator[Scope]:
    """Make scopes of every kind; names with a prefix are for kinds that have several sorts of names."""
    for kind, action, pattern in itertools.product(KINDS, ACTIONS, patterns):
        with contextlib.suppress(ScopeError):
            if "/" not in pattern or kind in {"cost", "mcp"}:
                yield parse_scope(f"{kind}:{action}:{pattern}")


SCOPES: Final = tuple(_scopes(PATTERNS))


@final
class Owners:
    """An engine in which each id is of an object of the caller's tenant, owned by who has that id."""

    def __init__(self) -> None:
        self.workflows = self.agents = self.llm = self.mcp = self

    def owner_of(self, id_: str) -> str:
        return id_

    agent_of = asked_by = owner_of

    def name_and_tenant(self, id_: str) -> tuple[str, str]:
        return id_, "acme"

    owner_of_session = name_and_tenant

    def tenant_of(self, _id: str) -> str:
        return "acme"


@final
class Arguments(dict[str, Any]):
    """Arguments that name the same object, whatever they are called; some are missing."""

    def __init__(self, name: str, missing: frozenset[str]) -> None:
        super().__init__()
        self._name, self._missing = name, missing

    def get(self, key: str, default: Any = None) -> Any:
        if key == "input":
            return self
        if key in self._missing:
            return default
        return "acme" if key == "tenantId" else self._name


@final
class Item(dict[str, str]):
    """An item of a list that has every key."""

    def __missing__(self, key: str) -> str:
        return key


def let_through(field: str, rule: Rule, rights: Rights) -> bool:
    """Try the check with one name after the other, with and without the arguments that may be left out."""
    always = frozenset({"user", "activities"})
    for name, missing in itertools.product(NAMES, ({"projectId"}, {"userId", "projectId"}, {"userId"})):
        arguments = Arguments(name, always | missing)
        try:
            verdict = judge(rule, field, cast("Engine", Owners()), rights, arguments, asker="me")
        except EngineError:
            continue
        if verdict is Verdict.ALLOWED:
            return True
    return False


@given(st.lists(st.sampled_from(SCOPES), max_size=6))
def test_a_field_is_open_where_the_check_lets_some_arguments_through(scopes: list[Scope]) -> None:
    rights = Rights.of(scopes, owner="me", tenant="acme")
    for field, rule in RULES.items():
        passed = let_through(field, rule, rights)
        if rule.lists is None:
            assert fields.is_open(rule, rights, "me") == passed, field
        elif fields.is_open(rule, rights, "me"):
            assert passed, field


@pytest.mark.parametrize("scope", SCOPES, ids=repr)
def test_a_scope_that_opens_a_field_opens_it_as_the_check_does(scope: Scope) -> None:
    rights = Rights.of([scope], owner="me", tenant="acme")
    for field, rule in RULES.items():
        if rule.lists is None:
            assert fields.is_open(rule, rights, "me") == let_through(field, rule, rights), field


def test_every_list_of_a_query_names_the_kind_of_its_items() -> None:
    for field, rule in QUERY_RULES.items():
        assert (rule.lists is not None) == (rule.item is not None or rule.page is not None), field
        if rule.item is not None and rule.lists is not None:
            assert rule.item(Item()).kind == rule.lists[0], field


def test_a_list_is_open_where_an_item_of_it_may_be_seen() -> None:
    for field, rule in QUERY_RULES.items():
        if rule.page is None:
            continue
        server = Rights.of([parse_scope("mcp:read:server/x")], owner="me", tenant="acme")
        session = Rights.of([parse_scope("mcp:read:session/x")], owner="me", tenant="acme")
        for rights in (server, session):
            assert fields.is_open(rule, rights, "me") == rule.page(rights)("x", "acme"), field


EVENTS: Final[Mapping[str, Mapping[str, Any]]] = {
    "resourceUpdates": {"workflowId": "x"},
    "workflowEvents": {"workflowId": "x"},
    "natsResourceStream": {"resource": {"workflowId": "x"}},
    "agentExecutionStream": {"agentId": "x"},
    "llmStream": {"requestId": "x"},
    "costUpdates": {"userId": "x", "projectId": "y"},
    "mcpServerStatusUpdates": {"serverId": "x"},
    "mcpCapabilityUpdates": {"serverId": "x"},
    "mcpSessionEvents": {"session": {"userId": "x", "server": {"tenantId": "acme"}}},
}


@pytest.mark.parametrize("field", streams.STREAMS)
def test_a_stream_is_open_where_an_event_of_it_may_be_seen(field: str) -> None:
    thing = streams.STREAMS[field].of_event(cast("Engine", Owners()), EVENTS[field])
    assert thing is not None
    for scope in _scopes(("x", "user/x", "project/y", "server/x", "session/x")):
        rights = Rights.of([scope], owner="me", tenant="acme")
        assert streams.is_open(field, rights) == thing.may(rights, "read"), scope
