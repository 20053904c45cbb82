"""The state of sign-ins that have begun: expired ones go, and the others are not looked at."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from circuit_breaker_server.engine.mcp.records import SignInBegun
from circuit_breaker_server.engine.mcp.state import McpState
from circuit_breaker_server.engine.record_bodies import encode_body
from circuit_breaker_server.engine.state_tables import Table
from circuit_breaker_server.log.event_log import Record


def begin(state: McpState, offset: int, *, at: str, expires_at: str) -> None:
    body = SignInBegun(
        key=f"k{offset}", at=at, server_id="s", user_id="u", redirect_uri="https://a", expires_at=expires_at
    )
    state.apply(Record(offset=offset, subject="mcp.s", id="0" * 32, time_ms=0, data=encode_body(body)))


def test_a_sign_in_that_begins_lets_the_expired_go() -> None:
    state = McpState()
    for offset in range(1, 4):
        begin(state, offset, at=f"2030-01-01T00:0{offset}", expires_at=f"2030-01-01T00:1{offset}")
    assert state.pending_sign_ins(None, "2030-01-01T00:12") == 1
    begin(state, 4, at="2030-01-01T00:12", expires_at="2030-01-01T00:22")
    assert list(state.sign_ins) == ["k3", "k4"]


def test_a_sign_in_begins_without_a_look_at_all_that_are_pending(monkeypatch: pytest.MonkeyPatch) -> None:
    looked_at = 0
    keys, items = Table.__iter__, Table.items

    def counted_keys(table: Table[Any]) -> Iterator[str]:
        nonlocal looked_at
        for key in keys(table):
            looked_at += 1
            yield key

    def counted_items(table: Table[Any]) -> list[tuple[str, Any]]:
        nonlocal looked_at
        looked_at += len(table)
        return items(table)

    monkeypatch.setattr(Table, "__iter__", counted_keys)
    monkeypatch.setattr(Table, "items", counted_items)
    state = McpState()
    for offset in range(1, 201):
        begin(state, offset, at="2030-01-01T00:00", expires_at="2030-01-01T00:10")
        assert state.pending_sign_ins("", "2030-01-01T00:00") == offset
    assert looked_at <= 2 * 200
