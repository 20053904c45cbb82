"""The records of nodes: one has joined, has left, was declared gone, or the log's format has changed.

Heartbeats are no records.
"""

from __future__ import annotations

from typing import Final, final

import msgspec

from circuit_breaker_server.engine.record_bodies import VersionedBody, decode_as
from circuit_breaker_server.engine.record_versions import FIRST_FORMAT
from circuit_breaker_server.log.event_log import Record, subject

__all__ = [
    "FORMAT_SUBJECT",
    "NODE_SUBJECTS",
    "Body",
    "FormatChanged",
    "NodeGone",
    "NodeJoined",
    "NodeLeft",
    "decode_body",
    "node_subject",
]

FORMAT_SUBJECT: Final = subject("format", "log")
"""The subject of the records that change the log's format."""

NODE_SUBJECTS: Final = "node."
"""The first token, with its dot, of the subjects of nodes' records."""


def node_subject(name: str) -> str:
    """Name the subject of a node's records."""
    return subject("node", name)


@final
class NodeJoined(VersionedBody, frozen=True, kw_only=True, tag="node_joined"):
    """A node has started. Its earlier terms are over.

    :ivar term: the number of its start, 1 for the first.
    :ivar address: where it serves, as it says itself.
    :ivar release: the version of its program.
    :ivar reads: the newest version of records that it reads.
    """

    name: str
    term: int
    at: str
    address: str
    release: str
    reads: int = FIRST_FORMAT


@final
class NodeLeft(VersionedBody, frozen=True, kw_only=True, tag="node_left"):
    """A node has stopped, and said so."""

    name: str
    term: int
    at: str


@final
class NodeGone(VersionedBody, frozen=True, kw_only=True, tag="node_gone"):
    """A node was declared gone: it did not answer for too long.

    :ivar by: the name of the node that has declared it; it writes the audit lines that are missing.
    :ivar audited: the offset up to which the lines of the node that is gone are known to be written; ``None``
        in a record of an older program, which writes no lines of others.
    """

    name: str
    term: int
    at: str
    by: str
    audited: int | None = None


@final
class FormatChanged(VersionedBody, frozen=True, kw_only=True, tag="format_changed"):
    """From here on records are written in another version. This one is of the version before it.

    :ivar format: the version.
    :ivar by: the name of the node that has written it; empty for a server that is alone on its log.
    """

    format: int
    at: str
    by: str


Body = NodeJoined | NodeLeft | NodeGone | FormatChanged

_DECODER: msgspec.json.Decoder[Body] = msgspec.json.Decoder(Body)


def decode_body(record: Record) -> Body:
    """Read a record's body, brought up to date.

    :raises LogCorruptError: the body is of a newer version, of an unknown type, or no body at all.
    """
    return decode_as(_DECODER, record)
