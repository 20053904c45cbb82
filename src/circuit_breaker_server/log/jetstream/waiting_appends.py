"""Appends that wait to be sent, and which of them go together in one atomic batch."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Final, final

from circuit_breaker_server.log.event_log import NewRecord, Record

__all__ = ["Append", "take_group"]

_MAX_MESSAGES: Final = 256  # and those of the last record of a batch; the broker takes 1,000
_MAX_BYTES: Final = 4 * 1024 * 1024


@final
class Append:
    """An append under way.

    :ivar deduplicated: the broker is asked to refuse an id that it remembers.
    :ivar is_uncertain: a copy was sent whose outcome is not known.
    :ivar problem: the last reason why it is not stored yet.
    :ivar timer: ends it.
    """

    __slots__ = ("answer", "deduplicated", "is_uncertain", "problem", "record", "timer")

    def __init__(self, record: NewRecord, answer: asyncio.Future[Record]) -> None:
        """Wait for an answer; nothing was sent yet."""
        self.record = record
        self.answer = answer
        # What has guards has an expectation too, and that alone keeps it from being stored twice.
        self.deduplicated = record.guards is None
        self.is_uncertain = False
        self.problem = "the broker does not answer"
        self.timer: asyncio.TimerHandle | None = None


def take_group(
    waiting: deque[Append], *, last_offset_of: Callable[[str], int | None]
) -> tuple[list[Append], list[Append]]:
    """Remove the appends of the next batch, and those that the tail shows to conflict.

    The broker takes one expectation per subject and batch. So a subject has one record with an expectation in
    a batch, or any number without, and a name is checked or marked once; the others keep their order and wait
    for the next one.
    """
    group: list[Append] = []
    conflicts: list[Append] = []
    deferred: list[Append] = []
    closed: set[str] = set()  # subjects that no further record of this batch may have
    open_: set[str] = set()  # subjects that have records without an expectation
    names: set[str] = set()  # that records of this batch check or mark
    size = messages = 0
    while waiting and messages < _MAX_MESSAGES and size < _MAX_BYTES:
        append = waiting.popleft()
        if append.answer.done():
            continue
        record = append.record
        subject = record.subject
        own_names = () if record.guards is None else {*record.guards.unmarked, *record.guards.marks}
        if (
            subject in closed
            or (record.expected is not None and subject in open_)
            or not names.isdisjoint(own_names)
        ):
            closed.add(subject)
            deferred.append(append)
            continue
        if record.expected is None:
            open_.add(subject)
        else:
            last = last_offset_of(subject)
            if last is not None and last != record.expected:
                conflicts.append(append)
                continue
            closed.add(subject)
        group.append(append)
        names.update(own_names)
        messages += 1 + len(own_names)
        size += len(record.data)
    waiting.extendleft(reversed(deferred))
    return group, conflicts
