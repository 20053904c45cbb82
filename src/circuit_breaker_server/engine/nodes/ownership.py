"""The owners of work that goes on by itself: runs, completions, timers.

All nodes fold the same records, so all compute the same owner. That decides who begins work and who takes it
over; that two nodes never both write its records, the expected offsets and the guards of appends see to.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Final, final

from circuit_breaker_server.engine.nodes.state import NodeState
from circuit_breaker_server.log.event_log import Guards, subject

__all__ = ["Identity", "Ownership", "fence_name"]

_KEEPING: Final = "snapshots and trimming"


@final
class Identity:
    """Which node this is.

    :ivar name: empty for a server that is alone on its log.
    :ivar term: the number of its start; 0 before it has joined, and for a server that is alone.
    """

    __slots__ = ("name", "term")

    def __init__(self, name: str = "", term: int = 0) -> None:
        self.name = name
        self.term = term


@final
class Ownership:
    """Tells what this node owns. A server that is alone owns everything.

    Example::

        if ownership.is_mine("session/4711"):
            ...
    """

    def __init__(self, state: NodeState, me: Identity) -> None:
        self._state = state
        self.me = me
        """Which node this is."""

    @property
    def is_alone(self) -> bool:
        """Whether this server is the only one on its log."""
        return not self.me.name

    def is_mine(self, work: str) -> bool:
        """Tell whether this node owns work that belongs to no node by itself, as timers do."""
        return self.is_alone or (self._chosen(work) == self.me.name and self._lives())

    @property
    def keeps_the_log(self) -> bool:
        """Whether this node saves the state and trims the log; at most one of them does.

        A node that reads more than the log's format could save what an older one cannot load: it leaves that
        to the older nodes. Where there is none, nothing is saved until the format is raised.
        """
        if self.is_alone:
            return True
        return _choose(self._state.keepers, _KEEPING) == self.me.name and self._lives()

    def is_mine_as_recorded(self, work: str, *, node: str, term: int) -> bool:
        """Tell whether this node owns work that a node has begun: its own as long as it lives."""
        if self.is_alone:
            return True
        if self._state.is_live(node, term):
            return (node, term) == (self.me.name, self.me.term)
        return self.is_mine(work)

    def is_me(self, *, node: str, term: int) -> bool:
        """Tell whether a record was written by this node, since it last joined."""
        return (node, term) == (self.me.name, self.me.term)

    def fence(self, *, decided_at: int) -> Guards | None:
        """Return the guards of what this node writes as an owner: it was not declared gone meanwhile."""
        if self.is_alone:
            return None
        name = fence_name(self.me.name, self.me.term)
        return Guards(decided_at=decided_at, unmarked=(name,))

    def _lives(self) -> bool:
        return self._state.is_live(self.me.name, self.me.term)

    def _chosen(self, work: str) -> str | None:
        """Choose among the living by rendezvous hashing: few change their owner when a node comes or goes."""
        return _choose(self._state.live, work)


def _choose(names: Iterable[str], work: str) -> str | None:
    return max(names, key=lambda name: _weight(name, work), default=None)


def fence_name(node: str, term: int) -> str:
    """Return the name that is marked when a node is declared gone."""
    return f"gone.{subject(node)}.{term}"


def _weight(name: str, work: str) -> tuple[bytes, str]:
    return hashlib.blake2b(f"{name}\0{work}".encode(), digest_size=8).digest(), name
