"""Refuse records that no log can hold, before they reach the others of their group."""

from __future__ import annotations

import re
from functools import lru_cache

from circuit_breaker_server.log.event_log import MAX_DATA_BYTES, MAX_GUARDS, Guards, NewRecord

__all__ = ["validate"]

_SUBJECT = re.compile(r"[^.*> \t\r\n\x00]+(?:\.[^.*> \t\r\n\x00]+)*")
_LONGEST_REMEMBERED = 256
_ID = re.compile(r"[0-9a-f]{32}")


@lru_cache(maxsize=4096)
def _validate_subject(subject: str) -> None:
    if not _SUBJECT.fullmatch(subject):
        raise ValueError(f"not a subject (tokens joined by dots, no wildcards or blanks): {subject!r}")
    subject.encode()


def validate(record: NewRecord) -> None:
    """Refuse what no implementation can hold.

    :raises ValueError: the subject has empty tokens, wildcards or blanks or is not encodable, the id is not
        32 lower-case hex digits, the data is longer than ``MAX_DATA_BYTES``, a guard's name is no subject,
        or there are more of them than ``MAX_GUARDS``, or guards without ``expected``.
    """
    if len(record.subject) <= _LONGEST_REMEMBERED:
        _validate_subject(record.subject)
    else:
        _validate_subject.__wrapped__(record.subject)
    if not _ID.fullmatch(record.id):
        raise ValueError(f"a record's id is 32 lower-case hex digits, not {record.id!r}")
    if len(record.data) > MAX_DATA_BYTES:
        raise ValueError(f"a record holds {MAX_DATA_BYTES} bytes at most, not {len(record.data)}")
    if record.guards is not None:
        _validate_guards(record.guards, record.expected)


def _validate_guards(guards: Guards, expected: int | None) -> None:
    if expected is None:
        raise ValueError("a record with guards has an expected offset too")
    if max(len(guards.unmarked), len(guards.marks)) > MAX_GUARDS:
        raise ValueError(f"a record has {MAX_GUARDS} guards at most")
    for name in (*guards.unmarked, *guards.marks):
        _validate_subject.__wrapped__(name)
