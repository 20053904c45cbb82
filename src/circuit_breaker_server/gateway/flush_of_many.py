"""A flush of the channels that have very many members, over several turns of the event loop."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from itertools import islice
from typing import Final, TypeAlias, final

from circuit_breaker_server.gateway.channel import Channel
from circuit_breaker_server.gateway.feed import Feed
from circuit_breaker_server.gateway.guarded_calls import call_each
from circuit_breaker_server.gateway.subscriber import Subscriber

__all__ = ["MANY", "Collect", "FlushOfMany", "Members"]

MANY: Final = 512
"""A channel with more members is not flushed in one turn of the loop."""

_IN_A_STEP: Final = 128
"""Members."""

Members: TypeAlias = Mapping[Subscriber[Feed], None]

Collect: TypeAlias = Callable[[Collection[Subscriber[Feed]], dict[Feed, None]], None]
"""Collects what is new for members of one channel, and adds the feeds that have to be written."""


@final
class FlushOfMany:
    """One walk over the members that channels had when it began.

    Each step gives some members all that is new for them by then. Nothing that was collected waits for the
    next step: what a peer is told between two of them would overtake it.

    :ivar members: by channel, as they were; whoever joins or leaves meanwhile has to change a copy.

    Example::

        flush = FlushOfMany({channel: members}, collect, end_peer)
        while flush.step():
            ...  # what else there is to do
    """

    def __init__(
        self,
        members: Mapping[Channel, Members],
        collect: Collect,
        end_peer: Callable[[Feed, Exception], None],
    ) -> None:
        """``end_peer`` ends a peer that has raised."""
        self.members = members
        self._collect = collect
        self._end_peer = end_peer
        self._ends = [(channel, channel.end_seq) for channel in members]
        self._steps = self._walk()

    def step(self) -> bool:
        """Go on; return whether there is more to do."""
        return next(self._steps, False)

    def _walk(self) -> Iterator[bool]:
        # The subscriptions of a peer that has several are written together, in the end.
        several: dict[Feed, list[Subscriber[Feed]]] = {}
        for channel, members in self.members.items():
            rest = iter(members)
            while part := tuple(islice(rest, _IN_A_STEP)):
                alone = []
                for subscriber in part:
                    # Since the beginning it may have ended, or gone to another channel.
                    if subscriber.live and subscriber.channel is channel:
                        if subscriber.feed.has_one:
                            alone.append(subscriber)
                        else:
                            several.setdefault(subscriber.feed, []).append(subscriber)
                self._write({channel: alone})
                yield True
        together: dict[Channel, list[Subscriber[Feed]]] = {}
        count = 0
        for subscribers in several.values():
            for some in _parts(subscribers):
                for subscriber in some:
                    together.setdefault(subscriber.channel, []).append(subscriber)
                count += len(some)
                if count >= _IN_A_STEP:
                    self._write(together)
                    together, count = {}, 0
                    yield True
        self._write(together)
        for channel, end_seq in self._ends:
            channel.flushed(end_seq)

    def _write(self, members: Mapping[Channel, Sequence[Subscriber[Feed]]]) -> None:
        ready: dict[Feed, None] = {}
        for of_channel in members.values():
            self._collect(of_channel, ready)
        call_each(ready, Feed.write, self._end_peer)


def _parts(subscribers: Sequence[Subscriber[Feed]]) -> Iterator[Sequence[Subscriber[Feed]]]:
    """Cut what one peer has into parts; it is mostly one."""
    return (subscribers[start : start + _IN_A_STEP] for start in range(0, len(subscribers), _IN_A_STEP))
