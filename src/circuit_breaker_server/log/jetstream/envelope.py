"""A record as a message of NATS: its subject, its headers, its time."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Mapping
from datetime import datetime
from functools import lru_cache
from typing import Any, Final

from nats.aio.msg import Msg

from circuit_breaker_server.log.event_log import Guards, NewRecord, Record
from circuit_breaker_server.logs import get_logger

__all__ = [
    "DEDUPLICATION_HEADER",
    "ENVELOPE_BYTES",
    "EXPECTED_HEADER",
    "MAX_SUBJECT_BYTES",
    "headers_of",
    "headers_of_copy",
    "headers_of_leader",
    "mark_subject",
    "marked_at",
    "messages_of_guards",
    "record_from_delivery",
    "record_from_direct_get",
    "record_from_leader",
    "time_ms",
]

logger = get_logger("event_log")

DEDUPLICATION_HEADER: Final = "Nats-Msg-Id"
EXPECTED_HEADER: Final = "Nats-Expected-Last-Subject-Sequence"
_EXPECTED_SUBJECT_HEADER: Final = "Nats-Expected-Last-Subject-Sequence-Subject"
_ID_HEADER: Final = "Cb-Record-Id"
# Of a message that only marks or checks a name: how many messages behind it its record is.
_MARK_HEADER: Final = "Cb-Mark"
_NOTHING: Final = "nothing"
# Of a record that was copied from another log: when it was appended there.
_TIME_HEADER: Final = "Cb-Time-Ms"

ENVELOPE_BYTES: Final = 8 * 1024
"""Room for the headers of a record beside its body."""
MAX_SUBJECT_BYTES: Final = 2048
"""A server closes the connection that sends a longer control line than 4,096 bytes."""

_header_line = re.compile(rb"([^:\r\n]+):[ \t]*([^\r\n]*)\r\n")


def headers_of(record: NewRecord, *, expected: int | None, deduplicated: bool = True) -> dict[str, str]:
    """Return the headers of a record to append."""
    headers = {_ID_HEADER: record.id}
    if deduplicated:
        headers[DEDUPLICATION_HEADER] = record.id
    if expected is not None:
        headers[EXPECTED_HEADER] = str(expected)
    return headers


def mark_subject(name: str) -> str:
    """Return the subject of the messages that mark a name."""
    return f"mark.{name}"


def messages_of_guards(
    guards: Guards, prefix: str, *, expected: Callable[[str], int]
) -> list[tuple[str, dict[str, str]]]:
    """Return subject and headers of the messages that go before a record in its batch.

    Each carries one check, one mark, or both. What is checked and marked is in one message: the broker takes
    no expectation about a subject that the batch has written to before.

    :param expected: tells where a name's messages end.
    """
    messages: list[tuple[str, dict[str, str]]] = []
    pairs = guards.pairs()
    for distance, (check, mark) in zip(range(len(pairs), 0, -1), pairs, strict=True):
        subject = prefix + mark_subject(mark or _NOTHING)
        headers = {_MARK_HEADER: str(distance)}
        if check is not None:
            headers[EXPECTED_HEADER] = str(expected(check))
            if check != mark:
                headers[_EXPECTED_SUBJECT_HEADER] = prefix + mark_subject(check)
        messages.append((subject, headers))
    return messages


def marked_at(message: Mapping[str, Any]) -> int:
    """Return the offset of the record that came with a mark, of which the stream's leader answered."""
    headers, _ = headers_of_leader(message)
    return int(message["seq"]) + int(headers.get(_MARK_HEADER, "0"))


def headers_of_copy(record: Record) -> dict[str, str]:
    """Return the headers of a record that is copied from another log."""
    return {_ID_HEADER: record.id, DEDUPLICATION_HEADER: record.id, _TIME_HEADER: str(record.time_ms)}


def record_from_delivery(message: Msg, prefix: str, *, offset: int, time_ns: int) -> Record | None:
    """Read a message that a consumer delivered."""
    return _record(
        message.headers, message.subject, prefix, offset=offset, time=time_ns // 1_000_000, data=message.data
    )


def record_from_direct_get(message: Msg, prefix: str) -> Record | None:
    """Read a message that a direct get answered."""
    headers = message.headers or {}
    return _record(
        headers,
        headers["Nats-Subject"],
        prefix,
        offset=int(headers["Nats-Sequence"]),
        time=time_ms(headers["Nats-Time-Stamp"]),
        data=message.data or b"",
    )


def record_from_leader(message: Mapping[str, Any], prefix: str) -> Record | None:
    """Read a message that the stream's leader answered, in JSON."""
    headers, data = headers_of_leader(message)
    return _record(
        headers,
        message["subject"],
        prefix,
        offset=int(message["seq"]),
        time=time_ms(message["time"]),
        data=data,
    )


def headers_of_leader(message: Mapping[str, Any]) -> tuple[dict[str, str], bytes]:
    """Return the headers and the body of a message that the stream's leader answered."""
    lines = base64.b64decode(message.get("hdrs", ""))
    headers = {name.decode(): value.decode() for name, value in _header_line.findall(lines)}
    return headers, base64.b64decode(message.get("data", ""))


def _record(
    headers: Mapping[str, str] | None, subject: str, prefix: str, *, offset: int, time: int, data: bytes
) -> Record | None:
    headers = headers or {}
    record_id = headers.get(_ID_HEADER)
    if _MARK_HEADER in headers:
        return None
    if record_id is None or not subject.startswith(prefix):
        # Every node and every read skips it alike: a hole.
        logger.error(
            "foreign_message_skipped",
            offset=offset,
            subject=subject,
            advice="let nobody else publish to the log's subjects",
        )
        return None
    own_time = headers.get(_TIME_HEADER)
    return Record(
        offset=offset,
        subject=subject[len(prefix) :],
        id=record_id,
        time_ms=time if own_time is None else int(own_time),
        data=data,
    )


@lru_cache(maxsize=64)
def _seconds(text: str) -> int:
    return int(datetime.fromisoformat(f"{text}+00:00").timestamp())


def time_ms(text: str) -> int:
    """Return the milliseconds since 1970 of a time as JetStream writes it, always in UTC."""
    fraction = text[20:].rstrip("Z")
    return _seconds(text[:19]) * 1000 + int(f"{fraction:0<3}"[:3])
