"""Find the end of an audit log that is opened: its last line, and the bytes of an unfinished one after it."""

from __future__ import annotations

import os
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from circuit_breaker_server.security.audit.anchor import Anchor
from circuit_breaker_server.security.audit.paths import AuditLogError, AuditPaths
from circuit_breaker_server.security.audit.records import MAX_LINE_BYTES, AuditRecord, Seal, open_line
from circuit_breaker_server.security.audit.rotation import (
    Place,
    first_record,
    place_of,
    rotated_files,
    rotated_path,
)
from circuit_breaker_server.security.audit.verification import Finding, read
from circuit_breaker_server.security.clock import Clock

__all__ = ["LogEnd", "find_end", "last_position"]


class LogEnd(NamedTuple):
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


def find_end(paths: AuditPaths, fd: int, key: bytes, seal: Seal, clock: Clock) -> LogEnd:
    """Find the end of a log, and check it against the anchor.

    :raises AuditLogError: the log was tampered with, or is sealed with another key.
    """
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
        return LogEnd(end, size, torn, place, end.seq + 1, clock.now())
    return LogEnd(end, size, torn, place, first.seq, datetime.fromisoformat(first.at).timestamp())


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


def last_position(log: Path, fd: int, end: LogEnd, seal: Seal) -> str | None:
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
