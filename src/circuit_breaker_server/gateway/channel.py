"""A channel: one document with one set of variables and one view, its last events encoded once for all."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Hashable, Mapping, Sequence
from typing import Final, TypeAlias, final

from circuit_breaker_server.access.streams import View
from circuit_breaker_server.engine.events import Selection
from circuit_breaker_server.gateway.projection import Projection
from circuit_breaker_server.gateway.record_encoder import RecordEncoder
from circuit_breaker_server.gateway.subscription_plan import Plan, PlanKey

__all__ = ["END_OF_RECORD", "RESUMED", "Channel", "ChannelKey", "Entry", "Position", "with_resume"]

Position: TypeAlias = tuple[int, int]
"""Offset of a record, index of the event in it: the place just after that event."""

ChannelKey: TypeAlias = tuple[PlanKey, Hashable]
"""The subscription plan and the view of the events that its caller may read."""

END_OF_RECORD: Final = 2**31
"""An index after every event of a record."""


RESUMED: Final = b'%b,"extensions":{"resume":{"cursor":"%b","prev":"%b"}}}'
"""A payload with the resume extension: its head, its cursor and the one before."""


def with_resume(head: bytes, cursor: bytes, prev: bytes) -> bytes:
    """Close a payload with the resume extension; cursors need no escaping, they are ASCII of our making."""
    return RESUMED % (head, cursor, prev)


@final
class Entry:
    """One event in the ring.

    It is encoded when the first reader wants it, in the form that reader wants, and then shared.

    :ivar cursor: the event's own; ``prev`` the one of the channel's event before it.
    :ivar value: the event, ``None`` once it is encoded.
    :ivar plain: the payload without the resume extension; ``None`` until a reader needs it.
    :ivar resume: the payload with it; ``None`` until a reader needs it.
    :ivar size_bytes: what it holds in memory: as given at first, of the payloads once it is encoded.
    :ivar is_last: the stream ends with it.
    """

    __slots__ = (
        "cursor",
        "head_bytes",
        "is_last",
        "plain",
        "position",
        "prev",
        "resume",
        "size_bytes",
        "value",
    )

    def __init__(
        self, position: Position, cursor: str, prev: str, value: dict[str, object], size_bytes: int
    ) -> None:
        self.position = position
        self.cursor = cursor
        self.prev = prev
        self.value: dict[str, object] | None = value
        self.plain: bytes | None = None
        self.resume: bytes | None = None
        self.head_bytes = 0
        self.size_bytes = size_bytes
        self.is_last = False

    def head(self, projection: Projection) -> bytes:
        """Return the payload without its closing brace."""
        encoded = self.resume or self.plain
        if encoded is not None:
            return encoded[: self.head_bytes]
        if self.value is None:
            raise RuntimeError("an entry holds its value until it is encoded")
        return projection.encode(self.value)


@final
class Channel:
    """A bounded ring of events and the place after which it is complete.

    Events have a running number; a subscriber that keeps up is only such a number. The ring holds
    ``first_seq`` up to, not including, ``end_seq``, and everything that matched after ``base``.

    :ivar plan: what its subscribers ask for.
    :ivar view: what of it they may see.
    :ivar encoder: encodes what is read again from the log; ``None`` until something is.
    :ivar denied: how many events they might not.
    :ivar base: every matching event after this place is in the ring.
    :ivar last_cursor: of the newest event, at first of the place where the channel began.

    Example::

        channel = Channel(plan, EVERYTHING_SEEN, selection, base=(7, 0), base_cursor="…")
    """

    __slots__ = (
        "_entries",
        "_flushed_seq",
        "_ring_bytes",
        "_ring_size",
        "_size_bytes",
        "base",
        "denied",
        "dirty",
        "encoder",
        "end_seq",
        "first_seq",
        "key",
        "last_cursor",
        "plan",
        "projection",
        "selection",
        "stream",
        "view",
    )

    def __init__(
        self,
        plan: Plan,
        view: View,
        selection: Selection,
        *,
        base: Position,
        base_cursor: str,
        ring_size: int = 1024,
        ring_bytes: int = 256 * 1024,
    ) -> None:
        self.plan = plan
        self.view = view
        self.key: ChannelKey = (plan.key, view.key)
        self.stream = plan.field
        self.selection = selection
        self.projection = plan.projection(view.withheld)
        # Made when a member is read for: most never are.
        self.encoder: RecordEncoder | None = None
        self.denied = 0
        self.base = base
        self.last_cursor = base_cursor
        self.first_seq = 0
        self.end_seq = 0
        self.dirty = False
        self._entries: list[Entry] = []
        self._ring_size = ring_size
        self._ring_bytes = ring_bytes
        self._size_bytes = 0
        self._flushed_seq = 0

    def wants(self, stream: str, value: dict[str, object]) -> bool:
        """Tell whether an event belongs here; its record's subject is already known to match."""
        if stream != self.stream:
            return False
        matches = self.selection.matches
        if matches is not None and not matches(value):
            return False
        return self.view.permits is None or self.shows(value)

    def shows(self, value: dict[str, object]) -> bool:
        """Tell whether an event may be seen; count it if not."""
        permits = self.view.permits
        if permits is None or permits(value):
            return True
        self.denied += 1
        return False

    def ends_with(self, value: Mapping[str, object]) -> bool:
        """Tell whether the stream ends with this event."""
        finite = self.selection.finite
        return finite is not None and finite.ends(value)

    def offer(
        self, position: Position, cursor: str, value: dict[str, object], *, size_bytes: int = 0
    ) -> None:
        """Append an event; the oldest ones leave a full ring. ``size_bytes``: what it takes, unencoded."""
        entry = Entry(position, cursor, self.last_cursor, value, size_bytes)
        entry.is_last = self.ends_with(value)
        self._entries.append(entry)
        self._size_bytes += size_bytes
        self.last_cursor = cursor
        self.end_seq += 1
        if len(self._entries) > self._ring_size or self._size_bytes > self._ring_bytes:
            self._shrink()

    @property
    def is_full_of_news(self) -> bool:
        """The next event would drop one that was not flushed yet."""
        is_full = len(self._entries) >= self._ring_size or self._size_bytes >= self._ring_bytes
        return is_full and self.first_seq >= self._flushed_seq

    @property
    def is_half_full_of_news(self) -> bool:
        """The ring is full, and half of it was not flushed yet."""
        is_full = len(self._entries) >= self._ring_size or self._size_bytes >= self._ring_bytes
        return is_full and 2 * (self.end_seq - self._flushed_seq) >= len(self._entries)

    def flushed(self, end_seq: int) -> None:
        """Hear that everyone with room has been given everything before ``end_seq``."""
        self._flushed_seq = end_seq
        if self._size_bytes > self._ring_bytes or len(self._entries) > self._ring_size:
            self._shrink()

    def entry(self, seq: int) -> Entry:
        return self._entries[seq - self.first_seq]

    @property
    def last(self) -> Entry:
        return self._entries[-1]

    def payloads(self, seq: int, *, resume: bool, prev: str) -> Sequence[bytes]:
        """Return the payloads from ``seq`` on, for a subscriber whose last event had the cursor ``prev``.

        The bytes are the shared ones but for the first where the reader's ``prev`` is not the channel's.
        """
        entries = self._entries[seq - self.first_seq :]
        if resume:
            payloads = [entry.resume or self._encode(entry, resume=True) for entry in entries]
            if entries and entries[0].prev != prev:
                first = entries[0]
                payloads[0] = with_resume(first.head(self.projection), first.cursor.encode(), prev.encode())
            return payloads
        return [entry.plain or self._encode(entry, resume=False) for entry in entries]

    def offsets(self, seq: int) -> list[int]:
        """Return the offset of each event's record, from ``seq`` on."""
        return [entry.position[0] for entry in self._entries[seq - self.first_seq :]]

    def _encode(self, entry: Entry, *, resume: bool) -> bytes:
        head = entry.head(self.projection)
        entry.head_bytes = len(head)
        if resume:
            encoded = entry.resume = with_resume(head, entry.cursor.encode(), entry.prev.encode())
        else:
            encoded = entry.plain = head + b"}"
        grown = len(encoded) if entry.value is None else len(encoded) - entry.size_bytes
        entry.value = None
        entry.size_bytes += grown
        self._size_bytes += grown
        return encoded

    def _shrink(self) -> None:
        """Drop the oldest events while there are too many, or too many bytes; keep what was not flushed."""
        entries = self._entries
        most = min(self._flushed_seq - self.first_seq, len(entries) - 1)
        size, count = self._size_bytes, max(min(len(entries) - self._ring_size, most), 0)
        for entry in entries[:count]:
            size -= entry.size_bytes
        while size > self._ring_bytes and count < most:
            size -= entries[count].size_bytes
            count += 1
        if count:
            self.base = entries[count - 1].position
            self.first_seq += count
            self._size_bytes = size
            del entries[:count]

    def seq_after(self, position: Position) -> int | None:
        """Return the number of the first event after ``position``; ``None`` if the ring has lost some."""
        if position < self.base:
            return None
        return self.first_seq + bisect_right(self._entries, position, key=lambda entry: entry.position)
