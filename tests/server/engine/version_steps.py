"""A step between two versions of records: one field more, and one kind of record that the older one lacks.

The program under test reads the newer one, NEW; the version below it is called OLD here.
"""

from __future__ import annotations

import pytest

from circuit_breaker_server.engine.nodes import state
from circuit_breaker_server.engine.record_versions import DOWNCASTERS, UPCASTERS, VERSION, CannotStepDown

__all__ = ["ADDED", "NEW", "NEW_KIND", "OLD", "down", "put_steps", "up"]

NEW = VERSION
OLD = VERSION - 1
ADDED = "triggeredBy"
"""The field that OLD lacks; its default is null."""
NEW_KIND = "state_created"
"""The kind of record that OLD lacks."""


def up(body: dict[str, object]) -> dict[str, object]:
    """Make the body of NEW of one of OLD."""
    return {**body, ADDED: None} if body["type"] == "resource_created" else body


def down(body: dict[str, object]) -> dict[str, object]:
    """Make the body of OLD of one of NEW."""
    if body["type"] == NEW_KIND:
        raise CannotStepDown(f"there is no {NEW_KIND} in it")
    if body["type"] != "resource_created":
        return body
    return {name: value for name, value in body.items() if name != ADDED}


def put_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the program write and read OLD as well, and logs begin in it."""
    monkeypatch.setattr(state, "FIRST_FORMAT", OLD)
    monkeypatch.setitem(UPCASTERS, OLD, up)
    monkeypatch.setitem(DOWNCASTERS, NEW, down)
