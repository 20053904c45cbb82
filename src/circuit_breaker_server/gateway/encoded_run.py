"""The events of a channel that one flush encodes and frames once for many subscribers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias, final

from circuit_breaker_server.gateway.channel import Channel
from circuit_breaker_server.gateway.peer import Frame

__all__ = ["EncodingFailed", "Memo", "Run"]


@final
class EncodingFailed(Exception):
    """An event of a channel cannot be encoded; the cause is what the projection raised."""


@final
class Run:
    """A channel's events from one number on: encoded once in a flush, for all subscribers at that position.

    :ivar payloads: of its events.
    :ivar prev: the ``prev`` cursor of the first event; a subscriber that received another one before gets
        bytes of its own.
    :ivar prefix: of the operation framed last, ``framed`` what came of it. No more is kept: bytes that are
        let go leave their place in the processor's cache to the next ones.
    """

    __slots__ = ("_pieces", "frame", "framed", "last", "payloads", "prefix", "prev", "resume", "seq")

    def __init__(self, channel: Channel, seq: int, frame: Frame, *, resume: bool) -> None:
        self.seq = seq
        self.frame = frame
        self.resume = resume
        self.prev = channel.entry(seq).prev
        self.last = channel.last
        self.prefix: bytes | None = None
        self.framed = b""
        self.payloads = channel.payloads(seq, resume=resume, prev=self.prev)
        self._pieces: dict[int, Sequence[bytes]] = {}

    def frames(self, prefix: bytes) -> bytes:
        """Frame for one operation; a client that numbers its operations alike gets the same bytes."""
        pieces = self._pieces.get(len(prefix))
        if pieces is None:
            pieces = self._pieces[len(prefix)] = self.frame(len(prefix), self.payloads)
        self.prefix, self.framed = None, b""
        frames = self.framed = prefix.join(pieces)
        self.prefix = prefix
        return frames


Memo: TypeAlias = list[Run]
"""The runs of a channel that one flush has already encoded, the run used last in front."""
