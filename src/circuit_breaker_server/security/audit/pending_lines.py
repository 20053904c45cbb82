"""Seal events into the hash chain, and keep their lines in memory until they are on the disk."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Final, NamedTuple, final

from circuit_breaker_server.security.audit.anchor import Anchor
from circuit_breaker_server.security.audit.records import (
    AuditEvent,
    Seal,
    Timestamps,
    event_members,
    own_members,
    seal_line,
)
from circuit_breaker_server.security.audit.rotation import Place, rotated_path
from circuit_breaker_server.security.audit.summaries import Summaries
from circuit_breaker_server.security.clock import Clock

__all__ = ["MAX_PENDING_BYTES", "PendingLines", "TakenLines"]

MAX_PENDING_BYTES: Final = 8 * 1024 * 1024
_EQUAL_LINES: Final = 8
"""Equal events that get a line each, of those that are written together."""


class TakenLines(NamedTuple):
    """Lines that the writer has taken over.

    :ivar data: their bytes.
    :ivar end: the last of them.
    """

    data: bytes
    end: Anchor


@final
class PendingLines:
    """The hash chain, and the lines of it that are not on the disk; any thread may append.

    Its lock is never held while the disk works. Lines about records of the event log have
    ``max_effect_bytes`` of their own, all other lines ``max_pending_bytes``; an event for which there is no
    room is counted, and a line ``lost`` says how many are missing at that place.

    Example::

        lines = PendingLines(
            Path("audit.jsonl"),
            Seal(key),
            Anchor(),
            position=None,
            clock=WallClock(),
            max_pending_bytes=MAX_PENDING_BYTES,
            max_effect_bytes=MAX_PENDING_BYTES,
            summaries=Summaries(AuditLimits()),
        )
        lines.append(event)
        taken = lines.take()
    """

    def __init__(
        self,
        log: Path,
        seal: Seal,
        last: Anchor,
        *,
        position: str | None,
        clock: Clock,
        max_pending_bytes: int,
        max_effect_bytes: int,
        summaries: Summaries,
    ) -> None:
        """``last``: the line that the chain goes on after. ``log``: the file that is written."""
        self._log = log
        self._seal = seal
        self._clock = clock
        self._max_pending_bytes = max_pending_bytes
        self._max_effect_bytes = max_effect_bytes
        self._lock = threading.Lock()
        self._times = Timestamps()
        self._seq, self._mac = last.seq, last.mac.encode()
        self._pending: list[bytes] = []
        # How often each event was appended since lines were last taken.
        self._said: dict[bytes, int] = {}
        self._summaries = summaries
        self._held_bytes = 0
        # Of these, the lines about records: waiting, and taken over but not durable.
        self._effect_bytes = self._taken_effect_bytes = 0
        self._missing = 0
        self._lost = 0
        self._closed = False
        self.position = position
        """The last record of the event log whose line is here, as ``epoch.offset``; ``None``: none yet."""
        self._taken_position = self._durable_position = position

    @property
    def durable_position(self) -> str | None:
        """The position up to which no line about a record is missing on the disk."""
        with self._lock:
            return self._durable_position if self._owes_lines else self.position

    @property
    def _owes_lines(self) -> bool:
        return bool(self._effect_bytes or self._taken_effect_bytes)

    @property
    def lost(self) -> int:
        """The number of events for which there was no room."""
        return self._lost

    @property
    def held_bytes(self) -> int:
        """The number of bytes that are not on the disk yet."""
        return self._held_bytes

    @property
    def effects_fit(self) -> bool:
        """Whether lines about further records fit into their share of the memory."""
        return self._effect_bytes + self._taken_effect_bytes < self._max_effect_bytes

    @property
    def window_seconds_left(self) -> float | None:
        """The seconds until summaries are due; ``None``: nothing is counted."""
        with self._lock:
            return self._summaries.seconds_left

    def append(self, event: AuditEvent) -> bool:
        """Seal an event and keep it; tell whether it is the first one lost since there was room.

        :raises RuntimeError: the log is closed.
        """
        members = event_members(event)
        with self._lock:
            if self._closed:
                raise RuntimeError("the audit log is closed")
            first = False
            if self._summaries.due:
                self._add_summaries()
            if event.record is not None or event.taken_over is not None:
                if not self._owes_lines:
                    self._durable_position = self.position
                before = self._held_bytes
                self._add(members)
                self._effect_bytes += self._held_bytes - before
                if event.record is not None:
                    # With its line, under the same lock: no line that names a position comes between them.
                    self.position = event.record
            elif (times := self._said.get(members, 0)) >= _EQUAL_LINES:
                self._said[members] = times + 1
            elif not self._summaries.lists(event):
                pass
            elif self._others_bytes() >= self._max_pending_bytes:
                first = self._lose(1)
            else:
                self._add_missing()
                self._add(members)
                self._said[members] = times + 1
        return first

    def add(self, members: bytes) -> None:
        """Add a line of the log's own."""
        with self._lock:
            self._add(members)

    def begin_file(self, place: Place) -> None:
        """Add the line that begins a file."""
        with self._lock:
            self._add_rotate(place)

    def take(self, next_place: Place | None = None) -> TakenLines | None:
        """Take over the lines that wait; with a place, the line that begins the next file waits then."""
        with self._lock:
            if self._others_bytes() < self._max_pending_bytes:
                self._add_missing()  # not with each try of a disk that fails for long
            self._add_equal()
            if self._summaries.due:
                self._add_summaries()
            lines, self._pending = self._pending, []
            self._taken_position = self.position
            self._taken_effect_bytes += self._effect_bytes
            self._effect_bytes = 0
            taken = TakenLines(b"".join(lines), Anchor(self._seq, self._mac.decode())) if lines else None
            if next_place is not None:
                self._add_rotate(next_place)
        return taken

    def release(self, size_bytes: int) -> None:
        """Let go of all lines that were taken: they are durable."""
        with self._lock:
            self._held_bytes -= size_bytes
            self._taken_effect_bytes = 0
            self._durable_position = self._taken_position

    def close(self) -> bool:
        """Add the line ``stop``, after which nothing is appended; ``False``: that was done before."""
        with self._lock:
            if self._closed:
                return False
            self._add_missing()
            self._add_equal()
            self._add_summaries()
            self._add(own_members("stop", f"pid {os.getpid()}", record=self.position))
            self._closed = True
        return True

    def _add(self, members: bytes) -> None:
        line, self._mac = seal_line(
            self._seal, self._seq + 1, self._times.write(self._clock.now()), members, self._mac
        )
        self._seq += 1
        self._pending.append(line)
        self._held_bytes += len(line)

    def _others_bytes(self) -> int:
        return self._held_bytes - self._effect_bytes - self._taken_effect_bytes

    def _lose(self, count: int) -> bool:
        """Count events that are not kept; tell whether they are the first since there was room."""
        first = not self._missing
        self._missing += count
        self._lost += count
        return first

    def _add_summaries(self) -> None:
        for members, count in self._summaries.take():
            if self._others_bytes() >= self._max_pending_bytes:
                self._lose(count)
            else:
                self._add_missing()
                self._add(members)

    def _add_missing(self) -> None:
        if self._missing:
            members = own_members("lost", "the disk failed, and memory was full", self._missing)
            self._missing = 0
            self._add(members)

    def _add_equal(self) -> None:
        for members, times in self._said.items():
            if times > _EQUAL_LINES:
                self._add(b'%b,"times":%d' % (members, times - _EQUAL_LINES))
        self._said.clear()

    def _add_rotate(self, place: Place) -> None:
        what = f"follows {rotated_path(self._log, place.before).name}"
        members = own_members(
            "rotate",
            what,
            record=self.position,
            file=place.before,
            first_file=place.first_file,
            first_seq=place.first_seq,
        )
        self._add(members)
