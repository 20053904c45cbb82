"""Read the cursor that an operation resumes after."""

from __future__ import annotations

from collections.abc import Mapping

from circuit_breaker_server.engine.cursor import Cursor
from circuit_breaker_server.gateway.event_reader import LogReader
from circuit_breaker_server.gateway.resume_gaps import GapReason
from circuit_breaker_server.gateway.subscription_errors import gap_error
from circuit_breaker_server.gateway.subscription_plan import Refused

__all__ = ["parse_resume_cursor", "resume_after"]


def resume_after(extensions: Mapping[str, object] | None) -> str | None:
    """Return the cursor in ``extensions.resume.after`` of an operation; ``None`` if it names none.

    :raises Refused: ``RESUME_GAP``: what stands there is no text.
    """
    resume = (extensions or {}).get("resume")
    if resume is None:
        return None
    after = resume.get("after") if isinstance(resume, dict) else resume
    if after is None or isinstance(after, str):
        return after
    raise Refused([gap_error(GapReason.MALFORMED)])


def parse_resume_cursor(reader: LogReader, after: str) -> Cursor:
    """Parse a cursor of this log; whether the log still has its record is not looked up here.

    :raises Refused: ``RESUME_GAP``: it is no cursor, or one of another log.
    """
    try:
        cursor = reader.cursors.parse(after)
    except ValueError as error:
        raise Refused([gap_error(GapReason.MALFORMED)]) from error
    if cursor.epoch != reader.log.epoch:
        raise Refused([gap_error(GapReason.EPOCH)])
    return cursor
