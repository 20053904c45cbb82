"""One step of an examination and its result."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, NamedTuple, final

__all__ = ["HALF_OPEN", "Finding", "State", "fine", "not_offered", "not_tried", "wrong"]

HALF_OPEN: Final = (
    "something between keeps the connection open and passes nothing on: a proxy, a firewall, or a server "
    "that hangs"
)
"""Advice where a connection is there and nothing comes back."""

_NO_FACTS: Mapping[str, object] = MappingProxyType({})


class State(enum.StrEnum):
    """Results of a step."""

    OK = "ok"
    NOT_OFFERED = "not offered"
    """The server does not have it; nothing is wrong."""
    NOT_TRIED = "not tried"
    """A step before it failed."""
    WRONG = "wrong"


@final
class Finding(NamedTuple):
    """The result of one step.

    :ivar advice: for what is wrong, what to do; else empty.
    :ivar facts: for programs; JSON.
    """

    step: str
    state: State
    text: str
    advice: str = ""
    facts: Mapping[str, object] = _NO_FACTS


def fine(step: str, text: str, **facts: object) -> Finding:
    """Return a good result."""
    return Finding(step, State.OK, text, facts=facts)


def not_offered(step: str, text: str) -> Finding:
    """Return that the server does not have it."""
    return Finding(step, State.NOT_OFFERED, text)


def not_tried(step: str, why: str) -> Finding:
    """Return that a step before it failed."""
    return Finding(step, State.NOT_TRIED, why)


def wrong(step: str, text: str, advice: str, **facts: object) -> Finding:
    """Return what is wrong, and what to do."""
    return Finding(step, State.WRONG, text, advice, facts)
