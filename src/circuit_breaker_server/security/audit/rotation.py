"""The files of one audit log: a full file gets a number, and the chain goes on in a new one.

``audit.jsonl`` is the file that is written; ``audit.00000001.jsonl`` and so on are those before it. Each file
but the first begins with a line ``rotate``: it names the file before, continues its chain, and says with
which file and line the log begins. What was before that, the server itself removed (``audit_keep_files``).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple, final

from circuit_breaker_server.security.audit.records import MAX_LINE_BYTES, AuditRecord, Seal, open_line

__all__ = ["Place", "Rotation", "first_record", "place_of", "rotated_files", "rotated_path"]

_DAY_SECONDS: Final = 86_400.0


@final
@dataclass(frozen=True, slots=True)
class Rotation:
    """When the next file of a log begins, and which files stay.

    :ivar max_bytes: a file that is at least so long is the last but one.
    :ivar max_seconds: likewise one whose first line is so old, at the next line.
    :ivar keep_files: files besides the one that is written, at least 1; older ones are removed. ``None``
        keeps all.

    Example::

        Rotation(max_bytes=1 << 20, keep_files=10)
    """

    max_bytes: int = 64 * 1024 * 1024
    max_seconds: float = 30 * _DAY_SECONDS
    keep_files: int | None = None


class Place(NamedTuple):
    """The position of a file in its log.

    :ivar before: the number of the file before it; 0 where there is none.
    :ivar first_file: the number of the log's first file.
    :ivar first_seq: of that file's first line.
    """

    before: int = 0
    first_file: int = 1
    first_seq: int = 1


def rotated_path(log: Path, number: int) -> Path:
    """Name a file that is full."""
    return log.with_name(f"{log.stem}.{number:08d}{log.suffix}")


def rotated_files(log: Path) -> dict[int, Path]:
    """Find the files that are full, by number.

    :raises OSError: the directory cannot be read.
    """
    name = re.compile(rf"{re.escape(log.stem)}\.(\d{{8}}){re.escape(log.suffix)}")
    try:
        found = [(name.fullmatch(each.name), each) for each in log.parent.iterdir()]
    except FileNotFoundError:
        return {}
    return dict(sorted((int(match[1]), path) for match, path in found if match is not None))


def first_record(file: BinaryIO, seal: Seal) -> AuditRecord | None:
    """Read the first line of a file; ``None`` if there is none, or it is not as it was sealed."""
    file.seek(0)
    line = file.readline(MAX_LINE_BYTES)
    file.seek(0)
    return open_line(seal, line)


def place_of(log: Path, current: AuditRecord | None, rotated: dict[int, Path], seal: Seal) -> Place:
    """Return the place of the file that is written.

    :param current: its first line; ``None`` if a crash came before it was written.
    :raises OSError: a file cannot be read.
    """
    if current is not None:
        return _place(current)
    if not rotated:
        return Place()
    last = max(rotated)
    with rotated_path(log, last).open("rb") as file:
        record = first_record(file, seal)
    return Place(last) if record is None else _place(record)._replace(before=last)


def _place(record: AuditRecord) -> Place:
    if record.file is None:
        return Place()
    return Place(record.file, record.first_file or 1, record.first_seq or 1)
