"""Write the lines of the audit log to its file, make them durable, and begin the next file."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Final, final

from circuit_breaker_server.logs import get_logger
from circuit_breaker_server.security.audit.log_end import LogEnd
from circuit_breaker_server.security.audit.paths import AuditPaths, sync_directory
from circuit_breaker_server.security.audit.pending_lines import PendingLines
from circuit_breaker_server.security.audit.records import Seal
from circuit_breaker_server.security.audit.rotation import (
    Place,
    Rotation,
    first_record,
    rotated_files,
    rotated_path,
)
from circuit_breaker_server.security.clock import Clock

__all__ = ["FileWriter", "open_file"]

_OPEN: Final = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW

logger = get_logger("audit")


def open_file(path: Path, *, truncate: bool = False) -> int:
    """Open a file of the log to be written, for its owner only; make it if it is missing.

    :raises OSError: it cannot be used.
    """
    return os.open(path, _OPEN | os.O_TRUNC if truncate else _OPEN, 0o600)


@final
class FileWriter:
    """The file that is written, and the rotation to the next one; used by one thread at a time.

    Lines that were taken from :class:`PendingLines` are kept until they are durable: a write that failed is
    repeated at the same place (:meth:`write_again`). The next file begins only after the lines of the old one
    and the anchor are durable; wherever a crash comes between, the next start goes on.

    Example::

        writer = FileWriter(paths, open_file(paths.log), seal, end, lines, clock=clock, rotation=Rotation())
        writer.flush(sync=True)
        writer.close()
    """

    def __init__(
        self,
        paths: AuditPaths,
        fd: int,
        seal: Seal,
        end: LogEnd,
        lines: PendingLines,
        *,
        clock: Clock,
        rotation: Rotation,
    ) -> None:
        """Hold an open file that ends as ``end`` says."""
        self._paths = paths
        self._fd = fd
        self._seal = seal
        self._lines = lines
        self._clock = clock
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
        # What is not durable, behind `_size`; how many parts and bytes of it are written.
        self._parts: list[bytes] = []
        self._written = 0
        self._written_bytes = 0
        self._end = self._anchored = end.anchor

    def flush(self, *, sync: bool) -> None:
        """Write the lines that wait; with ``sync`` make them durable and move the anchor. Blocks on the disk.

        :raises OSError: the disk failed; :meth:`write_again` has to come before the next flush.
        """
        if sync:
            self._rotate()
        self._take()
        self._write()
        if sync:
            self._sync()

    def write_again(self) -> None:
        """Write all that is not durable with the next flush."""
        # All of it: what a failed sync has dropped looks as if it were written.
        self._written = self._written_bytes = 0

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)
        self._fd = -1

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

    def _begin_file(self, number: int) -> None:
        """Give the file its number and make a new one; what has failed half-way goes on where it was."""
        path = self._paths.log
        new = path.with_name(f"{path.name}.new")
        if self._end.seq >= self._first_seq:
            # The new file first: on a full disk the old one keeps its name.
            fd = open_file(new, truncate=True)
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

    def _take(self, next_place: Place | None = None) -> None:
        taken = self._lines.take(next_place)
        if taken is not None:
            self._end = taken.end
            self._parts.append(taken.data)

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
            self._lines.release(self._written_bytes)
            self._size += self._written_bytes
            self._parts, self._written, self._written_bytes = [], 0, 0
        if self._anchored.seq < self._end.seq:
            self._end.write(self._paths.anchor, self._seal)
            self._anchored = self._end
        if self._is_cluttered and self._size:
            self._remove_files()
