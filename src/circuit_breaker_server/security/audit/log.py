"""Write the audit log: lines are sealed when appended, and a thread writes them to the disk in groups."""

from __future__ import annotations

import asyncio
import errno
import os
import threading
import time
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Final, NamedTuple, Self, final

from circuit_breaker_server.log.directory_lock import DirectoryLock
from circuit_breaker_server.log.event_log import LogError
from circuit_breaker_server.logs import get_logger
from circuit_breaker_server.security.audit.anchor import Anchor
from circuit_breaker_server.security.audit.paths import AuditLogError, AuditPaths, make_key, sync_directory
from circuit_breaker_server.security.audit.records import (
    MAX_LINE_BYTES,
    OWN_ACTIONS,
    AuditEvent,
    AuditRecord,
    Seal,
    Timestamps,
    event_members,
    open_line,
    own_members,
    seal_line,
)
from circuit_breaker_server.security.audit.rotation import (
    Place,
    Rotation,
    first_record,
    place_of,
    rotated_files,
    rotated_path,
)
from circuit_breaker_server.security.audit.summaries import AuditLimits, Summaries
from circuit_breaker_server.security.audit.verification import Finding, read
from circuit_breaker_server.security.clock import Clock, WallClock
from circuit_breaker_server.storage.private_files import make_private_directory

__all__ = ["AuditLog"]

_OPEN: Final = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
_FLUSH_SECONDS: Final = 0.2
_SYNC_SECONDS: Final = 1.0
_MAX_PENDING_BYTES: Final = 8 * 1024 * 1024
_RETRY_SECONDS: Final = 1.0
_EQUAL_LINES: Final = 8
"""Equal events that get a line each, of those that are written together."""

logger = get_logger("audit")


class _End(NamedTuple):
    """The end of an existing log that is being opened.

    :ivar anchor: its last line.
    :ivar size: of the file that is written, up to the end of its last line.
    :ivar torn: the bytes of an unfinished line after that.
    :ivar place: of the file that is written.
    :ivar first_seq: of its first line, which may be yet to be written.
    :ivar began: the time of that line, in seconds since 1970.
    """

    anchor: Anchor
    size: int
    torn: int
    place: Place
    first_seq: int
    began: float


@final
class AuditLog:
    """The one writer of an audit log.

    :meth:`append` seals a line and keeps it. A thread writes what is kept, at most once every
    ``flush_seconds``: lines that a killed process had not written are not in the log. At most once a second
    it makes the written lines durable, and moves the anchor; more often, the event log beside it would wait
    for the disk. Where the disk fails, lines are kept up to ``max_pending_bytes`` and written once it works
    again; events above that are counted, and a line ``lost`` says how many are missing at that place.

    A line about a record of the event log is never dropped. Such lines have ``max_effect_bytes`` of their
    own, which no other line uses; where these are used up, or the disk fails, :attr:`takes_effects` is false,
    and the server refuses mutations until the lines are on the disk.

    A caller that repeats an action must not fill the disk, nor keep it from other callers: of equal events
    that are written together the first eight have a line each, and one more line says how many followed
    (``times``). Of other events the first ones of a principal or address in a window have a line each, and
    the rest of the window is one line ``counted`` with counts by action and reason (:class:`AuditLimits`).

    A file that is full, or old, gets a number, and the chain goes on in a new file (:class:`Rotation`). The
    new file begins only after the old one and the anchor are durable; wherever a crash comes between, the
    next start goes on.

    Example::

        log = await AuditLog.open(AuditPaths.of(Path("data")))
        log.append(
            AuditEvent(action="query", principal="u-7", address="::1", what="health", decision="allowed")
        )
        await log.aclose()
    """

    def __init__(
        self,
        paths: AuditPaths,
        fd: int,
        seal: Seal,
        end: _End,
        *,
        position: str | None,
        lock: DirectoryLock,
        clock: Clock,
        flush_seconds: float,
        max_pending_bytes: int,
        max_effect_bytes: int,
        summaries: Summaries,
        rotation: Rotation,
    ) -> None:
        """Hold an open file that ends as said; :meth:`open` is the way in."""
        self._paths = paths
        self._fd = fd
        self._seal = seal
        self._lock = lock
        self._clock = clock
        self._flush_seconds = flush_seconds
        self._max_pending_bytes = max_pending_bytes
        self._max_effect_bytes = max_effect_bytes
        # The chain, and the lines that wait; under `_chain`, which nobody holds while the disk works.
        self._chain = threading.Lock()
        self._times = Timestamps()
        self._seq, self._mac = end.anchor.seq, end.anchor.mac.encode()
        self._pending: list[bytes] = []
        # How often what was said since lines were last taken.
        self._said: dict[bytes, int] = {}
        self._summaries = summaries
        self._held_bytes = 0
        # Of these, the lines about records: waiting, and taken over but not durable.
        self._effect_bytes = self._taken_effect_bytes = 0
        self._missing = 0
        self._lost = 0
        self._closed = False
        # What is not durable, and from where on; how many parts and bytes of it are written. Under `_disk`.
        self._disk = threading.Lock()
        self._size = end.size
        self._rotation = rotation
        self._place = end.place
        # Of the file's first line: its number, and when it was written.
        self._first_seq, self._began = end.first_seq, end.began
        # A file is ended while a new one is begun: lines that wait are of the new one.
        self._ending: Place | None = None
        self._is_moved = False
        # Whether files before the log's first one may still be there.
        self._is_cluttered = True
        self.position = position
        """The last record of the event log whose line is here, as ``epoch.offset``; ``None``: none yet."""
        self._parts: list[bytes] = []
        self._written = 0
        self._written_bytes = 0
        self._end = self._anchored = end.anchor
        self._failing = False
        self._wanted = threading.Event()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="audit-log", daemon=True)

    @classmethod
    async def open(
        cls,
        paths: AuditPaths,
        environment: Mapping[str, str] = os.environ,
        *,
        clock: Clock | None = None,
        flush_seconds: float = _FLUSH_SECONDS,
        max_pending_bytes: int = _MAX_PENDING_BYTES,
        max_effect_bytes: int = _MAX_PENDING_BYTES,
        limits: AuditLimits = AuditLimits(),  # noqa: B008 (a frozen value)
        monotonic: Callable[[], float] = time.monotonic,
        rotation: Rotation = Rotation(),  # noqa: B008 (a frozen value)
        first_position: str | None = None,
    ) -> Self:
        """Open a log, making its files where there are none, and say so in it (``start``).

        A line that a crash has cut short is replaced by a line ``restart``. Whatever else is not as it was
        written stays as it is, and the log is not opened: new lines would cover it up. After a crash all
        lines may be read for this; otherwise the last one is.

        :param environment: may have the key (:data:`KEY_VARIABLE`).
        :param limits: how many lines a principal or address has before the rest is counted.
        :param monotonic: the clock of their windows.
        :param rotation: when the next file begins, and which files stay.
        :param first_position: :attr:`position` of a log that has none yet: the end of the event log.
        :raises AuditLogError: another process writes it, it has been tampered with, it is sealed with another
            key, or a file cannot be used.
        """
        return await asyncio.to_thread(
            cls._open,
            paths,
            environment,
            clock=clock or WallClock(),
            flush_seconds=flush_seconds,
            max_pending_bytes=max_pending_bytes,
            max_effect_bytes=max_effect_bytes,
            summaries=Summaries(limits, monotonic=monotonic),
            rotation=rotation,
            first_position=first_position,
        )

    @classmethod
    def _open(
        cls,
        paths: AuditPaths,
        environment: Mapping[str, str],
        *,
        clock: Clock,
        flush_seconds: float,
        max_pending_bytes: int,
        max_effect_bytes: int,
        summaries: Summaries,
        rotation: Rotation,
        first_position: str | None,
    ) -> Self:
        key = make_key(paths.key, environment)
        seal = Seal(key)
        try:
            make_private_directory(paths.log.parent)
            make_private_directory(paths.anchor.parent)
            lock = DirectoryLock(paths.log.parent)
        except OSError as error:
            raise AuditLogError(f"{error.filename}: cannot be made ({error.strerror})") from error
        except LogError as error:
            raise AuditLogError(str(error)) from error
        try:
            fd = os.open(paths.log, _OPEN, 0o600)
            try:
                sync_directory(paths.log.parent)
                end = _find_end(paths, fd, key, seal, clock)
                position = _last_position(paths.log, fd, end, seal) or first_position
            except BaseException:
                os.close(fd)
                raise
        except OSError as error:
            lock.release()
            raise AuditLogError(
                f"{error.filename or paths.log}: cannot be used ({error.strerror}); "
                "the audit log and its anchor have to be writable for this user"
            ) from error
        except BaseException:
            lock.release()
            raise
        log = cls(
            paths,
            fd,
            seal,
            end,
            position=position,
            lock=lock,
            clock=clock,
            flush_seconds=flush_seconds,
            max_pending_bytes=max_pending_bytes,
            max_effect_bytes=max_effect_bytes,
            summaries=summaries,
            rotation=rotation,
        )
        if not end.size and end.place.before:
            log._add_rotate(end.place)
        if end.torn:
            log._add(own_members("restart", "a line was cut short, and is dropped", end.torn))
        log._add(own_members("start", f"pid {os.getpid()}", record=position))
        log.flush()
        log._thread.start()
        return log

    @property
    def lost(self) -> int:
        """The number of events lost since the log was opened, because the disk failed for too long."""
        return self._lost

    @property
    def pending_bytes(self) -> int:
        """The number of bytes in memory that are not on the disk yet."""
        return self._held_bytes

    @property
    def failing(self) -> bool:
        """Whether the last write failed; it is tried again each second."""
        return self._failing

    @property
    def takes_effects(self) -> bool:
        """Whether lines about further records can be written: the disk works, and their share has room."""
        return self.effects_fit and not self._failing

    @property
    def effects_fit(self) -> bool:
        """Whether lines about further records fit into their share of the memory."""
        return self._effect_bytes + self._taken_effect_bytes < self._max_effect_bytes

    def append(self, event: AuditEvent) -> None:
        """Seal an event and keep it to be written. Never waits for the disk; any thread may call it.

        :raises ValueError: the action is one of the log's own.
        :raises RuntimeError: the log is closed.
        """
        if event.action in OWN_ACTIONS:
            raise ValueError(f"{event.action!r} is what the audit log says of itself")
        members = event_members(event)
        with self._chain:
            if self._closed:
                raise RuntimeError("the audit log is closed")
            first = False
            if self._summaries.due:
                self._add_summaries()
            if event.record is not None:
                before = self._held_bytes
                self._add(members)
                self._effect_bytes += self._held_bytes - before
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
        if first:
            logger.error("audit_events_lost", pending_bytes=self._held_bytes, file=str(self._paths.log))
        if not self._wanted.is_set():
            self._wanted.set()

    def flush(self, *, sync: bool = True) -> bool:
        """Write what is kept; with ``sync`` make it durable and move the anchor. Blocks on the disk.

        Tell whether that has worked.
        """
        with self._disk:
            try:
                if sync:
                    self._rotate()
                self._take()
                self._write()
                if sync:
                    self._sync()
            except OSError as error:
                # All of it again: what a failed sync has dropped looks as if it were written.
                self._written = self._written_bytes = 0
                self._wanted.set()
                if not self._failing:
                    self._failing = True
                    logger.error(  # noqa: TRY400 (the reason says all that a traceback would)
                        "audit_write_failed",
                        advice="mutations are refused until the audit log can be written: make room for it",
                        file=str(error.filename or self._paths.log),
                        why=error.strerror,
                        pending_bytes=self._held_bytes,
                    )
                return False
            if self._failing:
                self._failing = False
                logger.warning("audit_written_again", lost=self._lost)
                self._wanted.set()  # what was lost has no line yet
            return True

    async def aclose(self) -> None:
        """Say so in the log (``stop``), write everything and let the next writer in. Idempotent.

        Where the disk fails to the end, what is kept is lost: the log has no ``stop`` then, and one error is
        logged.
        """
        await asyncio.to_thread(self._close)

    def _close(self) -> None:
        with self._chain:
            if self._closed:
                return
            self._add_missing()
            self._add_equal()
            self._add_summaries()
            self._add(own_members("stop", f"pid {os.getpid()}", record=self.position))
            self._closed = True
        self._closing.set()
        self._wanted.set()
        self._thread.join()
        if not self.flush():
            logger.error("audit_not_closed", pending_bytes=self._held_bytes, file=str(self._paths.log))
        os.close(self._fd)
        self._fd = -1
        self._lock.release()

    def _run(self) -> None:
        due = 0.0
        while True:
            with self._chain:
                left = self._summaries.seconds_left
            self._wanted.wait(left)
            # First of all: what is set from here on, by a close as well, is seen in the next round.
            self._wanted.clear()
            if self._closing.wait(self._flush_seconds):
                return
            now = time.monotonic()
            sync = now >= due or self._failing
            if sync:
                due = now + _SYNC_SECONDS
            if not self.flush(sync=sync):
                self._wanted.set()
                if self._closing.wait(_RETRY_SECONDS):
                    return
            elif not sync:
                self._wanted.set()

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

    def _rotate(self) -> None:
        """End the file, if it is due; its last lines and the anchor are durable before the next begins."""
        if self._ending is None:
            if self._fd < 0 or not self._is_full():
                return
            place = self._next_place()
            self._take(place)
            self._ending = place
        self._write()
        self._sync()
        self._begin_file(self._ending.before)
        self._place, self._ending = self._ending, None

    def _is_full(self) -> bool:
        # A file has more than the line that begins it.
        if self._size + self._written_bytes == 0 or self._end.seq <= self._first_seq:
            return False
        if self._size + self._written_bytes >= self._rotation.max_bytes:
            return True
        return self._clock.now() - self._began >= self._rotation.max_seconds

    def _next_place(self) -> Place:
        """Return the place of the file that comes next."""
        before, first, first_seq = self._place.before + 1, self._place.first_file, self._place.first_seq
        keep = self._rotation.keep_files
        if keep is not None and before - keep + 1 > first:
            first = before - keep + 1
            try:
                first_seq = self._first_seq if first == before else self._first_seq_of(first)
            except FileNotFoundError:  # moved away: what stays cannot be told, so nothing is removed
                return Place(before, self._place.first_file, self._place.first_seq)
        return Place(before, first, first_seq)

    def _first_seq_of(self, number: int) -> int:
        path = rotated_path(self._paths.log, number)
        with path.open("rb") as file:
            record = first_record(file, self._seal)
        if record is None:
            raise FileNotFoundError(errno.ENOENT, "is no file of this log any more", str(path))
        return record.seq

    def _add_rotate(self, place: Place) -> None:
        """Add the line that begins a file."""
        what = f"follows {rotated_path(self._paths.log, place.before).name}"
        members = own_members(
            "rotate",
            what,
            record=self.position,
            file=place.before,
            first_file=place.first_file,
            first_seq=place.first_seq,
        )
        self._add(members)

    def _begin_file(self, number: int) -> None:
        """Give the file its number and make a new one; what has failed half-way goes on where it was."""
        path = self._paths.log
        new = path.with_name(f"{path.name}.new")
        if self._end.seq >= self._first_seq:
            # The new file first: on a full disk the old one keeps its name.
            fd = os.open(new, _OPEN | os.O_TRUNC, 0o600)
            try:
                if not self._is_moved:
                    path.rename(rotated_path(path, number))
                    self._is_moved = True
                new.rename(path)
            except BaseException:
                os.close(fd)
                raise
            os.close(self._fd)
            self._fd, self._size, self._is_moved = fd, 0, False
            self._first_seq, self._began = self._end.seq + 1, self._clock.now()
        sync_directory(path.parent)
        self._is_cluttered = True

    def _remove_files(self) -> None:
        """Remove the files that the log no longer has: the line that says so is durable."""
        self._is_cluttered = False
        for number, path in rotated_files(self._paths.log).items():
            if number < self._place.first_file:
                try:
                    path.unlink()
                except OSError as error:
                    logger.warning("audit_file_not_removed", file=str(path), why=error.strerror)

    def _take(self, place: Place | None = None) -> None:
        """Take over the lines that wait; with a place, the line that begins the next file waits then."""
        with self._chain:
            if self._others_bytes() < self._max_pending_bytes:
                self._add_missing()  # not with each try of a disk that fails for long
            self._add_equal()
            if self._summaries.due:
                self._add_summaries()
            lines, self._pending = self._pending, []
            self._taken_effect_bytes += self._effect_bytes
            self._effect_bytes = 0
            if lines:
                self._end = Anchor(self._seq, self._mac.decode())
                self._parts.append(b"".join(lines))
            if place is not None:
                self._add_rotate(place)

    def _write(self) -> None:
        # The same bytes at the same place, however often it is tried; half a try is written over.
        data = b"".join(self._parts[self._written :])
        view, at = memoryview(data), self._size + self._written_bytes
        while view:
            written = os.pwrite(self._fd, view, at)
            view, at = view[written:], at + written
        self._written = len(self._parts)
        self._written_bytes += len(data)

    def _sync(self) -> None:
        if self._parts:
            os.ftruncate(self._fd, self._size + self._written_bytes)
            os.fsync(self._fd)
            with self._chain:
                self._held_bytes -= self._written_bytes
                self._taken_effect_bytes = 0
            self._size += self._written_bytes
            self._parts, self._written, self._written_bytes = [], 0, 0
        if self._anchored.seq < self._end.seq:
            self._end.write(self._paths.anchor, self._seal)
            self._anchored = self._end
        if self._is_cluttered and self._size:
            self._remove_files()


def _find_end(paths: AuditPaths, fd: int, key: bytes, seal: Seal, clock: Clock) -> _End:
    """Find the end of a log, and check it against the anchor."""
    last, size, torn = _last_line(paths.log, fd, seal)
    with os.fdopen(os.dup(fd), "rb") as file:
        first = first_record(file, seal) if size else None
    if size and first is None:
        raise _refused(paths, "its first line was edited")
    place = place_of(paths.log, first, rotated_files(paths.log), seal)
    if last is None and place.before:
        last = _last_of(rotated_path(paths.log, place.before), seal)
    anchor = Anchor.read(paths.anchor, seal)
    end = Anchor() if last is None else Anchor(last.seq, last.mac)
    if anchor is None and last is None:
        # Before the first line: from now on, a log without an anchor is one whose anchor was taken away.
        anchor = Anchor()
        anchor.write(paths.anchor, seal)
    if anchor is None:
        raise _refused(paths, f"there is no anchor {paths.anchor}")
    if anchor.seq > end.seq:
        raise _refused(paths, f"it ends with seq {end.seq}, and its anchor has seen {anchor.seq}")
    if anchor.seq == end.seq and anchor.mac != end.mac:
        raise _refused(paths, f"its seq {end.seq} is another line than its anchor's")
    if anchor.seq < end.seq:
        for each in read(paths.log, key, paths.anchor):
            if isinstance(each, Finding):
                raise _refused(paths, str(each))
    if first is None:
        return _End(end, size, torn, place, end.seq + 1, clock.now())
    return _End(end, size, torn, place, first.seq, datetime.fromisoformat(first.at).timestamp())


def _last_of(path: Path, seal: Seal) -> AuditRecord | None:
    """Return the last line of a file that is full."""
    with path.open("rb") as file:
        last, _, torn = _last_line(path, file.fileno(), seal)
    if torn:
        raise AuditLogError(f"{path}: was not opened: its last line has no end")
    return last


def _last_line(path: Path, fd: int, seal: Seal) -> tuple[AuditRecord | None, int, int]:
    whole = os.fstat(fd).st_size
    begin = max(0, whole - 2 * MAX_LINE_BYTES)
    window = os.pread(fd, whole - begin, begin)
    end = window.rfind(b"\n") + 1
    torn = len(window) - end
    if not end and not begin:
        return None, 0, torn
    record = open_line(seal, window[window.rfind(b"\n", 0, max(0, end - 1)) + 1 : end])
    if record is None or torn > MAX_LINE_BYTES:
        raise AuditLogError(
            f"{path}: was not opened: its last line was edited, or sealed with another key; "
            "run `circuit-breaker audit verify`, and move the log and its anchor away to begin anew"
        )
    return record, begin + end, torn


def _last_position(log: Path, fd: int, end: _End, seal: Seal) -> str | None:
    """Return the record that the last line about one names, in whichever file it is."""
    position, number = _last_position_in(fd, end.size, seal), end.place.before
    while position is None and number >= end.place.first_file:
        with rotated_path(log, number).open("rb") as file:
            position = _last_position_in(file.fileno(), os.fstat(file.fileno()).st_size, seal)
        number -= 1
    return position


def _last_position_in(fd: int, size: int, seal: Seal) -> str | None:
    """Return the record that the last line about one names; the lines are read from the end."""
    end, rest = size, b""
    while end > 0:
        begin = max(0, end - 2 * MAX_LINE_BYTES)
        lines = (os.pread(fd, end - begin, begin) + rest).splitlines(keepends=True)
        rest = lines.pop(0) if begin else b""  # its beginning is in the window before
        for line in reversed(lines):
            if b'"record":"' in line:
                found = open_line(seal, line)
                if found is not None and found.record is not None:
                    return found.record
        end = begin
    return None


def _refused(paths: AuditPaths, why: str) -> AuditLogError:
    return AuditLogError(
        f"{paths.log}: was not opened: {why}; run `circuit-breaker audit verify`, "
        "and move the log and its anchor away to begin anew"
    )
