"""Judge whether every event of every mutation arrived: once, and in order.

The judge knows nothing of GraphQL. It is told when a mutation is sent and when it was answered, which
events each stream owes for that answer, and which events each stream delivered; an event is any hashable
value that two parties build independently: one from the mutation's answer, one from what was received.

Nothing is promised about whether a mutation's answer or its event comes first, so arrivals wait in the
order they came until the answer that explains them is there. Memory is bounded by the mutations in flight,
not by the length of the run.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import final

__all__ = ["Judge", "Matched", "Ticket", "Verdict"]


@final
@dataclass(slots=True, eq=False)
class Ticket:
    """One mutation: when it was sent, in seconds of the caller's clock.

    :ivar is_timed: whether the time from then to its events is a latency; it is none where something that
        takes its time has to happen first.
    """

    sent_at: float
    is_timed: bool = True
    # By stream: the highest position among this mutation's events that arrived there.
    delivered: dict[str, int] = field(default_factory=dict)


@final
@dataclass(frozen=True, slots=True)
class Matched:
    """An arrival that a mutation's answer explained.

    :ivar latency_seconds: from just before the mutation was sent to the arrival.
    """

    stream: str
    latency_seconds: float


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """Findings of the judge.

    :ivar lost: events that mutations' answers owe and that never arrived.
    :ivar duplicated: arrivals beyond what the answers owe: a second copy, or an event of no mutation.
    :ivar reordered: arrivals that came after an event of a mutation which was sent only when theirs had
        already been answered, or after a later event of the same mutation.
    """

    lost: int
    duplicated: int
    reordered: int

    @property
    def is_clean(self) -> bool:
        """Whether nothing was lost, duplicated or reordered."""
        return self.lost == self.duplicated == self.reordered == 0


@final
@dataclass(frozen=True, slots=True)
class _Owed:
    ticket: Ticket
    answered_at: float
    position: int


@final
@dataclass(slots=True)
class _Stream:
    name: str
    owed: dict[Hashable, deque[_Owed]] = field(default_factory=dict)
    waiting: deque[tuple[Hashable, float]] = field(default_factory=deque)
    latest_sent_at: float = float("-inf")


@final
class Judge:
    """Compare what mutations' answers owe with what streams delivered.

    Times are seconds of one monotonic clock, given by the caller.

    Example::

        judge = Judge(["updates"])
        ticket = judge.sent(at=1.0)
        judge.received("updates", "draft", at=1.002)
        judge.answered(ticket, {"updates": ["draft"]}, at=1.003)
        assert judge.verdict().is_clean
    """

    def __init__(self, streams: Sequence[str] = ()) -> None:
        self._streams = {name: _Stream(name) for name in streams}
        self._in_flight: set[Ticket] = set()
        self._duplicated = 0
        self._reordered = 0
        self._matched: list[Matched] = []

    @property
    def is_settled(self) -> bool:
        """Whether nothing is in flight, nothing owed, and no arrival unexplained."""
        return not self._in_flight and not any(s.owed or s.waiting for s in self._streams.values())

    def open(self, stream: str) -> None:
        """Judge one more stream from now on."""
        self._streams[stream] = _Stream(stream)

    def close(self, stream: str) -> None:
        """Forget a stream, unless something is owed on it or waits to be explained."""
        found = self._streams.get(stream)
        if found is not None and not found.owed and not found.waiting:
            del self._streams[stream]

    def sent(self, *, at: float, is_timed: bool = True) -> Ticket:
        """Note that a mutation is about to be sent."""
        ticket = Ticket(at, is_timed)
        self._in_flight.add(ticket)
        return ticket

    def refused(self, ticket: Ticket, *, at: float) -> None:
        """Note that the mutation was refused: no stream owes anything for it."""
        self.answered(ticket, {}, at=at)

    def answered(self, ticket: Ticket, owed: Mapping[str, Sequence[Hashable]], *, at: float) -> None:
        """Note that the mutation was answered, and what each stream owes for it, in order."""
        self._in_flight.remove(ticket)
        for name, events in owed.items():
            stream = self._streams[name]
            for position, event in enumerate(events):
                stream.owed.setdefault(event, deque()).append(_Owed(ticket, at, position))
        for stream in self._streams.values():
            self._explain(stream)

    def received(self, stream: str, event: Hashable, *, at: float) -> None:
        """Note that a stream delivered an event."""
        found = self._streams[stream]
        found.waiting.append((event, at))
        self._explain(found)

    def take_matched(self) -> list[Matched]:
        """Hand over the arrivals explained since the last call, in order per stream."""
        matched, self._matched = self._matched, []
        return matched

    def verdict(self) -> Verdict:
        """Judge what is known now: what is owed and not there counts as lost, what waits as duplicated."""
        return Verdict(
            lost=sum(len(tickets) for s in self._streams.values() for tickets in s.owed.values()),
            duplicated=self._duplicated + sum(len(s.waiting) for s in self._streams.values()),
            reordered=self._reordered,
        )

    def certain(self) -> Verdict:
        """Judge what cannot be mended any more: lost is what later events have overtaken.

        What is merely on its way is neither lost nor doubled here. An event that was overtaken and comes
        after all is reordered.
        """
        return Verdict(
            lost=sum(
                each.answered_at < stream.latest_sent_at
                for stream in self._streams.values()
                for tickets in stream.owed.values()
                for each in tickets
            ),
            duplicated=self._duplicated,
            reordered=self._reordered,
        )

    def _explain(self, stream: _Stream) -> None:
        """Work off the arrivals whose mutation is known; stop at one whose answer may still come."""
        while stream.waiting:
            event, at = stream.waiting[0]
            owed = stream.owed.get(event)
            if owed is not None:
                self._match(stream, event, owed, at)
            elif any(ticket.sent_at <= at for ticket in self._in_flight):
                return
            else:
                # Every mutation sent before it arrived has been answered, and none owes it.
                self._duplicated += 1
            stream.waiting.popleft()

    def _match(self, stream: _Stream, event: Hashable, owed: deque[_Owed], at: float) -> None:
        found = owed.popleft()
        if not owed:
            del stream.owed[event]
        ticket = found.ticket
        highest = ticket.delivered.get(stream.name, -1)
        if found.answered_at < stream.latest_sent_at or found.position < highest:
            self._reordered += 1
        ticket.delivered[stream.name] = max(highest, found.position)
        stream.latest_sent_at = max(stream.latest_sent_at, ticket.sent_at)
        if ticket.is_timed:
            self._matched.append(Matched(stream.name, at - ticket.sent_at))
