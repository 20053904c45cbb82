"""The messages of an append: its record, and before it what checks and marks names."""

from __future__ import annotations

from typing import Final, final

from circuit_breaker_server.log.event_log import Record
from circuit_breaker_server.log.jetstream.envelope import headers_of, mark_subject, messages_of_guards
from circuit_breaker_server.log.jetstream.recent import Generations, RecentRecords
from circuit_breaker_server.log.jetstream.stream import Streams
from circuit_breaker_server.log.jetstream.waiting_appends import Append

__all__ = ["Message", "Messages"]

Message = tuple[str, bytes, dict[str, str]]
"""Subject, body, headers."""

_MARKS: Final = 16_384


@final
class Messages:
    """Make the messages of appends, with expectations that are guesses where only the leader knows.

    A guess can do no harm: where it is wrong, the batch is refused, and the leader is asked.

    Example::

        messages = Messages(streams, recent)
        batch = messages.of(append)
    """

    def __init__(self, streams: Streams, recent: RecentRecords) -> None:
        self._streams = streams
        self._recent = recent
        self._marks: Generations[str] = Generations(_MARKS)

    def subject_of_mark(self, name: str) -> str:
        """Return the subject of the messages that mark a name."""
        return self._streams.prefix + mark_subject(name)

    def learn(self, name: str, offset: int) -> None:
        """Take over where a name was last marked."""
        self._marks.put(name, offset)

    def delivered(self, append: Append, record: Record) -> None:
        """Take over the marks that were stored just before a record."""
        if append.record.guards is not None:
            names = [mark for _, mark in append.record.guards.pairs()]
            for offset, name in enumerate(names, record.offset - len(names)):
                if name is not None:
                    self._marks.put(name, offset)

    def of(self, append: Append) -> list[Message]:
        """Return what is sent for an append, in order."""
        record, prefix = append.record, self._streams.prefix
        expected = None if record.expected is None else self._kept(record.expected)
        headers = headers_of(record, expected=expected, deduplicated=append.deduplicated)
        own = (prefix + record.subject, record.data, headers)
        if record.guards is None:
            return [own]
        decided_at = record.guards.decided_at

        def end_of_mark(name: str) -> int:
            # Never one that came after the decision: it would hold.
            end = self._marks.get(name) or 0
            return self._kept(end) if end <= decided_at else 0

        guards = messages_of_guards(record.guards, prefix, expected=end_of_mark)
        return [*((subject, b"", each) for subject, each in guards), own]

    def _kept(self, expected: int) -> int:
        # What was trimmed, the server has forgotten.
        return 0 if expected < self._recent.first_offset else expected
