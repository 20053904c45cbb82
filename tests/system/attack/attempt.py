"""What every attack is: tried on a world, and refused or a breach."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeAlias

from tests.system.attack.world import World

__all__ = ["Attack", "Breach", "Scale", "must"]


class Breach(Exception):
    """An attack has worked, in part or whole."""


class Scale:
    """How much of each there is.

    :ivar connections: half-open handshakes.
    :ivar frames: of a flood of parts of messages.
    :ivar flood_seconds: how long whole frames are sent without end, and some attacks are repeated.
    :ivar fuzzed: messages for each side's protocol.
    :ivar fuzzed_frames: malformed frames on sockets.
    :ivar fuzzed_requests: requests, and polls.
    :ivar fuzzed_answers: of providers; of MCP servers a quarter.
    :ivar audited: mutations that have to have their audit line during a flood of refusals.
    :ivar crowd: resources of others.
    :ivar moves: in the history of some of them.
    :ivar timed_fields: fields with an id that are timed, at most.
    :ivar timings: of each of them, for existing and for missing ids.
    """

    def __init__(self, *, short: bool) -> None:
        self.connections = 2_000 if short else 10_000
        self.frames = 300 if short else 2_000
        self.flood_seconds = 1.0 if short else 5.0
        self.fuzzed = 5_000 if short else 100_000
        self.fuzzed_frames = 500 if short else 10_000
        self.fuzzed_requests = 1_000 if short else 20_000
        self.fuzzed_answers = 200 if short else 2_000
        self.audited = 500 if short else 10_000
        self.crowd = 5_000 if short else 20_000
        self.moves = 200 if short else 1_000
        self.timed_fields = 15 if short else 1_000
        self.timings = 200  # fewer tell nothing


Attack: TypeAlias = Callable[[World, Scale], Awaitable[str]]
"""Attacks; returns how it was refused, and raises :class:`Breach` if it was not."""


def must(holds: object, otherwise: str) -> None:
    """:raises Breach: it does not hold."""
    if not holds:
        raise Breach(otherwise)
