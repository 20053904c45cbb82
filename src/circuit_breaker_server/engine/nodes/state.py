"""Which nodes live, and the log's format, as the log says: every node folds the same list in the same order.

The format is the version in which all nodes write records, also those that read a newer one. It changes by a
record.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, final

import msgspec

from circuit_breaker_server.engine.nodes.records import (
    FormatChanged,
    NodeGone,
    NodeJoined,
    NodeLeft,
    decode_body,
)
from circuit_breaker_server.engine.record_bodies import NewerRecord
from circuit_breaker_server.engine.record_versions import FIRST_FORMAT, VERSION
from circuit_breaker_server.engine.state_tables import Entry, Table, TablePart
from circuit_breaker_server.log.event_log import Record, Snapshot

__all__ = ["FormatEntry", "NodeEntry", "NodeState"]

_LOG: Final = "log"


@final
class NodeEntry(Entry, frozen=True, kw_only=True):
    """A node; ``created`` is the offset of its first record.

    :ivar last: the offset of its last record.
    :ivar term: the number of its last start.
    :ivar address: where it serves.
    :ivar release: the version of its program.
    :ivar joined_at: when it started.
    :ivar status: ``live``, ``left`` or ``gone``.
    :ivar reads: the newest version of records that it reads.
    """

    last: int
    name: str
    term: int
    address: str
    release: str
    joined_at: str
    status: str
    reads: int = FIRST_FORMAT


@final
class FormatEntry(Entry, frozen=True, kw_only=True):
    """The log's format; there is no entry while it is the first one.

    :ivar last: the offset of the record that has changed it last.
    """

    last: int
    format: int


@final
class NodeState(TablePart):
    """The nodes by name, and the log's format.

    :param reads: the newest version of records that this node reads.
    :ivar format: the version in which records are written.
    :ivar keepers: the names of the nodes that live and read no newer version than the format.
    """

    tokens = frozenset({"node", "format"})

    def __init__(self, reads: int = VERSION) -> None:
        self.nodes: Table[NodeEntry] = Table("node", NodeEntry)
        self.formats: Table[FormatEntry] = Table("format", FormatEntry)
        self.format = FIRST_FORMAT
        self._reads = reads
        self._live: dict[str, int] = {}
        self.keepers: tuple[str, ...] = ()
        super().__init__(self.nodes, self.formats)

    @property
    def format_changed_at(self) -> int:
        """The offset of the record that has changed the format last; 0 where none has."""
        entry = self.formats.get(_LOG)
        return 0 if entry is None else entry.last

    def readers(self) -> dict[str, int]:
        """Return the newest version that each node that lives reads, by name."""
        return {name: entry.reads for name, entry in self.nodes.items() if name in self._live}

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
        entry = self.formats.get(_LOG)
        if entry is not None:
            self._use(entry.format)
        self._live = {name: entry.term for name, entry in self.nodes.items() if entry.status == "live"}
        self._find_keepers()

    def apply(self, record: Record) -> None:
        """Apply a record of a node, or one that changes the format.

        :raises NewerRecord: the format is one that this node does not read.
        """
        body = decode_body(record)
        if isinstance(body, FormatChanged):
            self._use(body.format)
            entry = FormatEntry(created=record.offset, last=record.offset, format=body.format)
            self.formats.put(_LOG, entry)
        else:
            self._apply_to_node(body, record)
        self._find_keepers()

    def _apply_to_node(self, body: NodeJoined | NodeLeft | NodeGone, record: Record) -> None:
        old = self.nodes.get(body.name)
        match body:
            case NodeJoined():
                self._live[body.name] = body.term
                joined = NodeEntry(
                    created=record.offset if old is None else old.created,
                    last=record.offset,
                    name=body.name,
                    term=body.term,
                    address=body.address,
                    release=body.release,
                    joined_at=body.at,
                    status="live",
                    reads=body.reads,
                )
                self.nodes.put(body.name, joined)
            case NodeLeft() | NodeGone():
                if old is not None and self._live.get(body.name) == body.term:
                    del self._live[body.name]
                    status = "left" if isinstance(body, NodeLeft) else "gone"
                    self.nodes.put(body.name, msgspec.structs.replace(old, last=record.offset, status=status))

    def _use(self, format_: int) -> None:
        if format_ > self._reads:
            raise NewerRecord(
                f"the event log is written in format {format_}, and this program reads up to {self._reads}: "
                "start a newer release"
            )
        self.format = format_

    def _find_keepers(self) -> None:
        self.keepers = tuple(name for name, reads in self.readers().items() if reads == self.format)
