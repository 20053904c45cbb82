"""Verify an audit log: line by line, against its key and its anchor, in memory that does not grow with it."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final, Literal, TypeAlias, final

from circuit_breaker_server.security.audit.anchor import Anchor
from circuit_breaker_server.security.audit.paths import AuditLogError
from circuit_breaker_server.security.audit.records import (
    GENESIS,
    MAX_LINE_BYTES,
    AuditRecord,
    Seal,
    open_line,
)
from circuit_breaker_server.security.audit.rotation import (
    Place,
    first_record,
    place_of,
    rotated_files,
    rotated_path,
)

__all__ = ["LOCK_NAME", "AuditLine", "Finding", "FindingKind", "Verification", "read", "verify"]

LOCK_NAME: Final = "events.lock"
"""The lock beside the log, held by the process that writes it (:mod:`.log.directory_lock`)."""

FindingKind: TypeAlias = Literal[
    "missing",
    "key",
    "edited",
    "deleted",
    "reordered",
    "foreign",
    "replaced",
    "truncated",
    "torn",
    "anchor",
    "more",
]

_MAX_FINDINGS: Final = 100

_TRIES: Final = 100
"""The most attempts to open the current file, as the server may rotate it meanwhile."""


@final
@dataclass(frozen=True, slots=True)
class Finding:
    """A fault that verification found in the log.

    :ivar kind: ``missing`` (no log, or a file of it), ``key`` (another key), ``edited``, ``deleted`` (lines
        before this one), ``reordered`` (or repeated), ``foreign`` (of another log with this key, or a file
        that is not of the log), ``replaced`` (not the line that the anchor has seen), ``truncated``, ``torn``
        (the last line has no end), ``anchor`` (missing, edited or behind), ``more`` (too many findings to
        name).
    :ivar line: of the file, from 1; ``None`` where it is about no line.
    :ivar text: a description for people.
    :ivar file: the name of the file where it is not the one that is written.
    """

    kind: FindingKind
    line: int | None
    text: str
    file: str | None = None

    def __str__(self) -> str:
        text = self.text if self.line is None else f"line {self.line}: {self.text}"
        return text if self.file is None else f"{self.file}: {text}"


@final
@dataclass(frozen=True, slots=True)
class AuditLine:
    """A line that is as it was written.

    :ivar text: its bytes, without the newline.
    """

    record: AuditRecord
    text: bytes


@final
@dataclass(frozen=True, slots=True)
class Verification:
    """The result of the verification of an audit log.

    :ivar records: the number of lines that are unchanged and in their place.
    :ivar first_at: when the first of them was written; ``None`` if there is none.
    :ivar last_at: likewise the last.
    :ivar head: the end of the log.
    :ivar findings: the faults, in the order of the file; empty if there are none.
    """

    records: int
    first_at: str | None
    last_at: str | None
    head: Anchor
    findings: tuple[Finding, ...]

    @property
    def whole(self) -> bool:
        """Whether there are no findings."""
        return not self.findings


def verify(path: Path, key: bytes, anchor: Path | None = None) -> Verification:
    """Check a whole log. It may be written meanwhile: lines after the anchor are well if they chain.

    :param anchor: ``None`` checks without one, and finds no end that was cut.
    :raises AuditLogError: the log cannot be read.

    Example::

        verify(paths.log, read_key(paths.key), paths.anchor).whole
    """
    records, first, last, findings = 0, None, None, list[Finding]()
    for each in read(path, key, anchor):
        if isinstance(each, Finding):
            findings.append(each)
        else:
            records += 1
            first, last = first or each.record, each.record
    head = Anchor() if last is None else Anchor(last.seq, last.mac)
    return Verification(records, first and first.at, last and last.at, head, tuple(findings))


def read(path: Path, key: bytes, anchor: Path | None = None) -> Iterator[AuditLine | Finding]:
    """Read a log: each line that is good, and what is wrong at the place where it is.

    At most 100 findings are named, and then how many more there are. A line that is repeated or out of its
    order is a finding only.

    :param anchor: as of :func:`verify`.
    :raises AuditLogError: the log cannot be read.
    """
    seal = Seal(key)
    named, unnamed = 0, 0
    unsure: list[Finding] = []  # until one line was good, it may be the key that is wrong
    reading = _Reading(path, seal, anchor)
    for each in reading.run():
        if not isinstance(each, Finding):
            yield from unsure
            unsure.clear()
            yield each
        elif named == _MAX_FINDINGS and each.kind not in {"truncated", "anchor"}:
            unnamed += 1
        else:
            named += 1
            if reading.key_is_right:
                yield each
            else:
                unsure.append(each)
    if any(finding.kind == "edited" for finding in unsure) and not reading.key_is_right:
        yield Finding("key", 1, "sealed with another key, as is every line; or all of them were edited")
    else:
        yield from unsure
        if unnamed:
            yield Finding("more", None, f"{unnamed} more findings")


@final
class _Reading:
    """One pass over all files of a log, in their order."""

    def __init__(self, path: Path, seal: Seal, anchor: Path | None) -> None:
        self._path = path
        self._seal = seal
        self._anchor_path = anchor
        self._anchor: Anchor | None = None
        self._last: AuditRecord | None = None
        self._seq = 0
        self._mac: str | None = GENESIS.decode()  # None: the line before was removed with its file
        self._broken = 0  # lines that cannot be read since the last one that can
        self.number = 0
        self._is_gap = False  # the server has removed files since the reading began
        self._file: str | None = None  # the name of a file that is full, while it is read
        self.key_is_right = False

    def run(self) -> Iterator[AuditLine | Finding]:
        # The anchor first: what is written meanwhile makes the log longer than it, never shorter.
        if self._anchor_path is not None:
            yield from self._read_anchor(self._anchor_path)
        try:
            current, rotated = self._open()
        except OSError as error:
            raise AuditLogError(f"{self._path}: cannot be read ({error.strerror})") from error
        with contextlib.ExitStack() as files:
            if current is not None:
                files.enter_context(current)
            elif not rotated:
                yield Finding("missing", None, f"{self._path}: there is no log")
                return
            try:
                yield from self._read_rotated(current, rotated)
                if current is not None:
                    yield from self._read(current)
            except OSError as error:
                raise AuditLogError(
                    f"{error.filename or self._path}: cannot be read ({error.strerror})"
                ) from error
        yield from self._end()

    def _open(self) -> tuple[BinaryIO | None, dict[int, Path]]:
        """Open the file that is written, and find those before it; the server may rotate meanwhile."""
        for _ in range(_TRIES):
            try:
                current = self._path.open("rb")
            except FileNotFoundError:
                rotated = rotated_files(self._path)
                if not rotated or not _is_written(self._path):
                    break
                os.sched_yield()
                continue
            rotated = rotated_files(self._path)
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(current.fileno()), self._path.stat()):
                    return current, rotated
            current.close()
        return None, rotated

    def _read_rotated(
        self, current: BinaryIO | None, rotated: dict[int, Path]
    ) -> Iterator[AuditLine | Finding]:
        first = None if current is None else first_record(current, self._seal)
        place = place_of(self._path, first, rotated, self._seal)
        self._begin_at(place.first_seq)
        number = place.first_file
        while number <= place.before:
            path = rotated_path(self._path, number)
            try:
                file = path.open("rb")
            except FileNotFoundError:
                # The server may have removed it since.
                now = self._place_now()
                if now.first_file > number:
                    number = min(now.first_file, place.before + 1)
                    self._is_gap = True
                    continue
                yield Finding("missing", None, "this file of the log is missing", path.name)
            else:
                with file:
                    self._file = path.name
                    yield from self._read(file)
                    self._file = None
            number += 1
        for number, path in rotated.items():
            if number > place.before:
                yield Finding("foreign", None, "this file is not of the log, or was moved", path.name)

    def _place_now(self) -> Place:
        try:
            with self._path.open("rb") as file:
                first = first_record(file, self._seal)
        except FileNotFoundError:
            first = None
        return place_of(self._path, first, rotated_files(self._path), self._seal)

    def _begin_at(self, seq: int) -> None:
        if seq > self._seq + 1:
            self._seq, self._mac = seq - 1, None

    def _read(self, file: BinaryIO) -> Iterator[AuditLine | Finding]:
        self.number = 0
        while line := file.readline(MAX_LINE_BYTES):
            self.number += 1
            if line.endswith(b"\n"):
                yield from self._take(line)
            else:
                yield from self._unended(file, len(line))

    def _finding(self, kind: FindingKind, text: str) -> Finding:
        return Finding(kind, self.number, text, self._file)

    def _read_anchor(self, path: Path) -> Iterator[Finding]:
        try:
            self._anchor = Anchor.read(path, self._seal)
        except AuditLogError as error:
            yield Finding("anchor", None, str(error))
        else:
            self.key_is_right = self._anchor is not None
            if self._anchor is None:
                yield Finding("anchor", None, f"{path}: there is no anchor; a cut end cannot be told")

    def _take(self, line: bytes) -> Iterator[AuditLine | Finding]:
        record = open_line(self._seal, line)
        if record is None:
            self._broken += 1
            yield self._finding("edited", "edited: its seal is not the seal of its text")
            return
        self.key_is_right = True
        if self._is_gap:
            self._begin_at(record.seq)
            self._is_gap = False
        missing = record.seq - self._seq - 1 - self._broken
        if record.seq <= self._seq:
            yield self._finding(
                "reordered",
                f"seq {record.seq} repeated or reordered: it comes after {self._seq}",
            )
            return
        follows = record.seq != self._seq + 1 or self._mac in (None, record.previous)
        if missing > 0:
            yield self._finding(
                "deleted",
                f"{missing} lines deleted or moved before it: seq {record.seq} comes next",
            )
        elif not follows:
            yield self._finding("foreign", f"seq {record.seq} does not follow the line before")
        self._last, self._seq, self._mac, self._broken = record, record.seq, record.mac, 0
        anchor = self._anchor
        if anchor is not None and record.seq == anchor.seq and record.mac != anchor.mac:
            yield self._finding("replaced", f"seq {record.seq} is another line than the anchor's")
        elif follows:
            yield AuditLine(record, line[:-1])

    def _unended(self, file: BinaryIO, length: int) -> Iterator[Finding]:
        ended = False
        while not ended and (more := file.readline(MAX_LINE_BYTES)):
            length += len(more)
            ended = more.endswith(b"\n")
        self._broken += 1
        if length > MAX_LINE_BYTES:
            yield self._finding("edited", f"edited: {length} bytes are no line of an audit log")
        elif self._file is not None or not _is_written(self._path):
            yield self._finding("torn", f"torn: the last {length} bytes are a line without its end")

    def _end(self) -> Iterator[Finding]:
        anchor = self._anchor
        if anchor is None or self._anchor_path is None:
            return
        if anchor.seq > self._seq:
            yield Finding(
                "truncated",
                self.number + 1,
                f"truncated: the log ends with seq {self._seq}, and the anchor has seen {anchor.seq}",
            )
        elif self._last is not None and self._last.action == "stop" and not _is_written(self._path):
            # It may have been closed since the anchor was read.
            try:
                again = Anchor.read(self._anchor_path, self._seal)
            except AuditLogError as error:
                yield Finding("anchor", None, str(error))
                return
            if again is None or again.seq < self._seq:
                yield Finding(
                    "anchor", None, f"{self._anchor_path}: the anchor is behind a log that was closed"
                )


def _is_written(path: Path) -> bool:
    try:
        fd = os.open(path.with_name(LOCK_NAME), os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(fd)
    return False
