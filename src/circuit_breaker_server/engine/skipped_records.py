"""Records that are not applied to the state, because an operator had them skipped.

A record that no release can apply would keep the server from starting. With the server stopped,
``circuit-breaker log skip`` appends a record that names it; these records are read before folding begins.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Final, final

import msgspec

from circuit_breaker_server.engine.command_origin import Origin, with_origin
from circuit_breaker_server.engine.ids import RandomIds
from circuit_breaker_server.engine.nodes.records import FORMAT_SUBJECT
from circuit_breaker_server.engine.nodes.state import NodeState
from circuit_breaker_server.engine.record_bodies import VersionedBody, decode_as, encode_body
from circuit_breaker_server.engine.timestamps import timestamp
from circuit_breaker_server.log.event_log import (
    EventLog,
    LogError,
    NewRecord,
    Record,
    Snapshot,
    matches,
    subject,
)

__all__ = ["ABOUT_LOG", "CannotSkip", "Skipped", "is_skipped", "load_skipped", "skip"]

ABOUT_LOG: Final = "log"
"""The first token of the subjects of records that are about the log itself."""

_SUBJECT: Final = subject(ABOUT_LOG, "skip")
_MAX_REASON: Final = 500


class CannotSkip(LogError):
    """The record cannot be skipped. The text says why."""


@final
class Skipped(VersionedBody, frozen=True, kw_only=True, tag="record_skipped"):
    """A record that is not applied.

    :ivar skipped_offset: its offset; ``skipped_check`` is its check, ``skipped_subject`` its subject.
    :ivar reason: why, in the operator's words.
    :ivar at: when it was decided (RFC 3339).
    """

    skipped_offset: int
    skipped_check: str
    skipped_subject: str
    reason: str
    at: str


_DECODER: Final = msgspec.json.Decoder(Skipped)


async def load_skipped(log: EventLog) -> Mapping[int, Skipped]:
    """Return the skipped records by offset.

    :raises LogCorruptError: a record that says so cannot be read.
    """
    found = await log.read(after=0, subjects=(_SUBJECT,), limit=100_000)
    return {body.skipped_offset: body for body in (decode_as(_DECODER, record) for record in found)}


def is_skipped(skipped: Iterable[Skipped], *, after: int, subjects: Sequence[str]) -> bool:
    """Tell whether a record above an offset was skipped whose subject one of the patterns matches."""
    return any(
        body.skipped_offset > after and matches(pattern, body.skipped_subject)
        for body in skipped
        for pattern in subjects
    )


async def skip(log: EventLog, offset: int, *, reason: str, operator: str) -> Record:
    """Append the record that has another one skipped, with an audit line.

    :param log: opened while no server runs on it.
    :param operator: the name of the operator, for the audit log.
    :raises CannotSkip: there is no such record, it is applied already, or is about the log itself.
    :raises LogError: the log cannot be read or written.
    """
    if not reason.strip() or len(reason) > _MAX_REASON:
        raise CannotSkip(f"--reason must not be empty and has at most {_MAX_REASON} characters")
    found = await log.read(after=offset - 1, limit=1) if offset > 0 else []
    if not found or found[0].offset != offset:
        raise CannotSkip(f"the log has no record {offset}: it holds {log.first_offset} to {log.last_offset}")
    record = found[0]
    if record.subject.partition(".")[0] == ABOUT_LOG:
        raise CannotSkip(f"record {offset} is itself about the log; it is never applied to the state")
    if record.subject == FORMAT_SUBJECT:
        raise CannotSkip(f"record {offset} changes the log's format: start a release that reads it")
    snapshot = await log.load_snapshot()
    if snapshot.offset >= offset:
        raise CannotSkip(f"record {offset} is applied already: the saved state covers it")
    if offset in await load_skipped(log):
        raise CannotSkip(f"record {offset} is skipped already")
    body = Skipped(
        skipped_offset=offset,
        skipped_check=record.check,
        skipped_subject=record.subject,
        reason=reason,
        at=timestamp(datetime.now(UTC)),
    )
    origin = Origin(principal=operator, action=f"log skip {offset}")
    data = with_origin(encode_body(body, await _format_of(log, snapshot)), origin, node="", term=0)
    return await log.append(NewRecord(subject=_SUBJECT, id=RandomIds().hex(), data=data))


async def _format_of(log: EventLog, snapshot: Snapshot) -> int:
    """Return the version in which records are written.

    :raises NewerRecord: this program does not read it.
    """
    nodes = NodeState()
    entries = {key: data for key, data in snapshot.entries.items() if key.partition("/")[0] in nodes.prefixes}
    nodes.restore(Snapshot(offset=snapshot.offset, entries=entries))
    for record in await log.read(after=snapshot.offset, subjects=(FORMAT_SUBJECT,), limit=1_000):
        nodes.apply(record)
    return nodes.format
