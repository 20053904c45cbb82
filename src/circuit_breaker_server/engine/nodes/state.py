"""Which nodes live, as the log says: every node folds the same list in the same order."""

from __future__ import annotations

from collections.abc import Mapping
from typing import final

import msgspec

from circuit_breaker_server.engine.nodes.records import NodeGone, NodeJoined, NodeLeft, decode_body
from circuit_breaker_server.engine.state_tables import Entry, Table, TablePart
from circuit_breaker_server.log.event_log import Record, Snapshot

__all__ = ["NodeEntry", "NodeState"]


@final
class NodeEntry(Entry, frozen=True, kw_only=True):
    """A node; ``created`` is the offset of its first record.

    :ivar last: the offset of its last record.
    :ivar term: the number of its last start.
    :ivar address: where it serves.
    :ivar release: the version of its program.
    :ivar joined_at: when it started.
    :ivar status: ``live``, ``left`` or ``gone``.
    """

    last: int
    name: str
    term: int
    address: str
    release: str
    joined_at: str
    status: str


@final
class NodeState(TablePart):
    """The nodes by name."""

    tokens = frozenset({"node"})

    def __init__(self) -> None:
        self.nodes: Table[NodeEntry] = Table("node", NodeEntry)
        self._live: dict[str, int] = {}
        super().__init__(self.nodes)

    @property
    def live(self) -> Mapping[str, int]:
        """The terms of the nodes that live, by name."""
        return self._live

    def is_live(self, name: str, term: int) -> bool:
        """Tell whether a node lives, in this term."""
        return self._live.get(name) == term

    def restore(self, snapshot: Snapshot) -> None:
        """See :class:`Part`."""
        super().restore(snapshot)
        self._live = {name: entry.term for name, entry in self.nodes.items() if entry.status == "live"}

    def apply(self, record: Record) -> None:
        """Apply a record of a node."""
        body = decode_body(record)
        old = self.nodes.get(body.name)
        match body:
            case NodeJoined():
                self._live[body.name] = body.term
                entry = NodeEntry(
                    created=record.offset if old is None else old.created,
                    last=record.offset,
                    name=body.name,
                    term=body.term,
                    address=body.address,
                    release=body.release,
                    joined_at=body.at,
                    status="live",
                )
                self.nodes.put(body.name, entry)
            case NodeLeft() | NodeGone():
                if old is not None and self._live.get(body.name) == body.term:
                    del self._live[body.name]
                    status = "left" if isinstance(body, NodeLeft) else "gone"
                    self.nodes.put(body.name, msgspec.structs.replace(old, last=record.offset, status=status))
