"""Book what the demo's mutations returned and what its operations received.

Both sides are turned into the same kind of value independently of each other, so that the judge can compare
them. What a stream owes for a mutation is told by the course that sends it; each kind of stream is
subscribed through its domain client and through the consolidated client, and both owe the same.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import Final, TypeAlias, TypeVar, final

from circuit_breaker_sdk.cli.demo.judge import Judge, Ticket
from circuit_breaker_sdk.cli.demo.tally import Mutations, Tally

__all__ = ["KINDS", "OPERATIONS", "Ledger", "Owed", "operations_of"]

KINDS: Final[Mapping[str, str]] = {
    "resourceUpdates": "workflows",
    "workflowEvents": "workflows",
    "agentExecutionStream": "agents",
    "llmStream": "llm",
    "costUpdates": "analytics",
    "mcpServerStatusUpdates": "mcp",
    "mcpSessionEvents": "mcp",
}
"""The kinds of streams, and the domain client of each."""


def operations_of(kinds: Iterable[str]) -> tuple[str, ...]:
    """Name the operations that stream these kinds: of the domain clients, then of the consolidated one."""
    names = tuple(kinds)
    return (*(f"{KINDS[kind]}.{kind}" for kind in names), *(f"subscriptions.{kind}" for kind in names))


OPERATIONS: Final = operations_of(KINDS)

Owed: TypeAlias = Mapping[tuple[str, str], Sequence[Hashable]]
"""Events owed for a mutation: by kind of stream and scope (a workflow, a request, …), in order."""

T = TypeVar("T")


@final
class Ledger:
    """Judge and count all operations, each of them subscribed once per scope.

    :ivar tallies: by operation, in the order of :data:`OPERATIONS`.
    :ivar judge: told of every mutation and every event.
    :ivar on_first_event: called with the first event of any operation.
    :ivar on_event: called with the operation of each event.
    """

    def __init__(self, operations: Sequence[str] = OPERATIONS) -> None:
        self.tallies: dict[str, Tally] = {name: Tally(operation=name) for name in operations}
        self.mutations: Mutations = Mutations()
        self.judge: Judge = Judge()
        self.on_first_event: Callable[[], None] | None = None
        self.on_event: Callable[[str], None] | None = None
        self._changed = asyncio.Event()

    @property
    def events(self) -> int:
        """Events received over all operations."""
        return sum(tally.events for tally in self.tallies.values())

    def send(self) -> Ticket:
        """Note that a mutation is sent now; to be called right before the call that sends it."""
        return self.judge.sent(at=time.perf_counter())

    def accepted(self, ticket: Ticket, owed: Owed) -> None:
        """Note that the mutation was answered, and what the streams owe for it."""
        self.mutations.accepted += 1
        self._answered(ticket, owed)

    def expected(self, owed: Owed) -> None:
        """Note what will follow by itself: judged like the rest, but how long it takes is no latency."""
        ticket = self.judge.sent(at=time.perf_counter(), is_timed=False)
        self._answered(ticket, owed)

    def refused(self, ticket: Ticket) -> None:
        """Note that the mutation was refused: it owes nothing."""
        self.mutations.refused += 1
        self.judge.refused(ticket, at=time.perf_counter())
        self._after_change()

    def handler(
        self,
        operation: str,
        scope: str,
        value_of: Callable[[T], Hashable],
        words_of: Callable[[T], str],
    ) -> Callable[[T], None]:
        """Make the handler of one subscription.

        :param value_of: turns an event into what a mutation's answer foretells.
        :param words_of: turns it into words for the table.
        """
        stream, tally = f"{operation} {scope}", self.tallies[operation]
        self.judge.open(stream)

        def on_event(event: T) -> None:
            at = time.perf_counter()  # first of all: this is where the latency ends
            tally.count(words_of(event))
            self.judge.received(stream, value_of(event), at=at)
            if self.on_event is not None:
                self.on_event(operation)
            self._after_change()

        return on_event

    def close(self, kind: str, scope: str) -> None:
        """Forget the streams of a scope that is over, if there is nothing left to judge."""
        for stream in _streams(kind, scope):
            self.judge.close(stream)

    async def settled(self) -> None:
        """Wait until everything owed is there and everything there is explained."""
        while not self.judge.is_settled:
            self._changed.clear()
            await self._changed.wait()

    def _answered(self, ticket: Ticket, owed: Owed) -> None:
        by_stream = {
            stream: values for (kind, scope), values in owed.items() for stream in _streams(kind, scope)
        }
        self.judge.answered(ticket, by_stream, at=time.perf_counter())
        self._after_change()

    def _after_change(self) -> None:
        for matched in self.judge.take_matched():
            self.tallies[matched.stream.partition(" ")[0]].time(matched.latency_seconds)
        self._changed.set()
        if self.on_first_event is not None and self.events:
            tell, self.on_first_event = self.on_first_event, None
            tell()


def _streams(kind: str, scope: str) -> tuple[str, str]:
    return f"{KINDS[kind]}.{kind} {scope}", f"subscriptions.{kind} {scope}"
