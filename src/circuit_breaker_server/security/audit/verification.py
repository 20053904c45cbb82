"""Checks an audit log: line by line, against its key and its anchor, in memory that does not grow with it."""

from __future__ import annotations

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

__all__ = ["LOCK_NAME", "AuditLine", "Finding", "FindingKind", "Verification", "read", "verify"]

LOCK_NAME: Final = "events.lock"
"""The lock beside the log, held by whoever writes it (:mod:`circuit_breaker_server.log.directory_lock`)."""

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


@final
@dataclass(frozen=True, slots=True)
class Finding:
    """What is wrong.

    :ivar kind: ``missing`` (no log), ``key`` (another key), ``edited``, ``deleted`` (lines before this one),
        ``reordered`` (or repeated), ``foreign`` (of another log with this key), ``replaced`` (not the line
        that the anchor has seen), ``truncated``, ``torn`` (the last line has no end), ``anchor`` (missing,
        edited or behind), ``more`` (too many findings to name).
    :ivar line: of the file, from 1; ``None`` where it is about no line.
    :ivar text: what it is, in words.
    """

    kind: FindingKind
    line: int | None
    text: str

    def __str__(self) -> str:
        return self.text if self.line is None else f"line {self.line}: {self.text}"


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
    """What a log is worth.

    :ivar records: the lines that are as they were written, and in their place.
    :ivar first_at: when the first of them was written; ``None`` if there is none.
    :ivar last_at: likewise the last.
    :ivar head: where the log ends.
    :ivar findings: what is wrong, in the order of the file; empty if nothing is.
    """

    records: int
    first_at: str | None
    last_at: str | None
    head: Anchor
    findings: tuple[Finding, ...]

    @property
    def whole(self) -> bool:
        """Whether nothing is wrong."""
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
    """One pass over a log."""

    def __init__(self, path: Path, seal: Seal, anchor: Path | None) -> None:
        self._path = path
        self._seal = seal
        self._anchor_path = anchor
        self._anchor: Anchor | None = None
        self._last: AuditRecord | None = None
        self._seq = 0
        self._mac = GENESIS.decode()
        self._broken = 0  # lines that cannot be read since the last one that can
        self.number = 0
        self.key_is_right = False

    def run(self) -> Iterator[AuditLine | Finding]:
        # The anchor first: what is written meanwhile makes the log longer than it, never shorter.
        if self._anchor_path is not None:
            yield from self._read_anchor(self._anchor_path)
        try:
            file = self._path.open("rb")
        except FileNotFoundError:
            yield Finding("missing", None, f"{self._path}: there is no log")
            return
        except OSError as error:
            raise AuditLogError(f"{self._path}: cannot be read ({error.strerror})") from error
        with file:
            try:
                while line := file.readline(MAX_LINE_BYTES):
                    self.number += 1
                    if line.endswith(b"\n"):
                        yield from self._take(line)
                    else:
                        yield from self._unended(file, len(line))
            except OSError as error:
                raise AuditLogError(f"{self._path}: cannot be read ({error.strerror})") from error
        yield from self._end()

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
            yield Finding("edited", self.number, "edited: its seal is not the seal of its text")
            return
        self.key_is_right = True
        missing = record.seq - self._seq - 1 - self._broken
        if record.seq <= self._seq:
            yield Finding(
                "reordered",
                self.number,
                f"seq {record.seq} repeated or reordered: it comes after {self._seq}",
            )
            return
        follows = record.seq != self._seq + 1 or record.previous == self._mac
        if missing > 0:
            yield Finding(
                "deleted",
                self.number,
                f"{missing} lines deleted or moved before it: seq {record.seq} comes next",
            )
        elif not follows:
            yield Finding("foreign", self.number, f"seq {record.seq} does not follow the line before")
        self._last, self._seq, self._mac, self._broken = record, record.seq, record.mac, 0
        anchor = self._anchor
        if anchor is not None and record.seq == anchor.seq and record.mac != anchor.mac:
            yield Finding("replaced", self.number, f"seq {record.seq} is another line than the anchor's")
        elif follows:
            yield AuditLine(record, line[:-1])

    def _unended(self, file: BinaryIO, length: int) -> Iterator[Finding]:
        ended = False
        while not ended and (more := file.readline(MAX_LINE_BYTES)):
            length += len(more)
            ended = more.endswith(b"\n")
        self._broken += 1
        if length > MAX_LINE_BYTES:
            yield Finding("edited", self.number, f"edited: {length} bytes are no line of an audit log")
        elif not _is_written(self._path):
            yield Finding("torn", self.number, f"torn: the last {length} bytes are a line without its end")

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
