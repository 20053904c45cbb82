"""Runs of events: what one read has brought for operations of one type, decoded together."""

from __future__ import annotations

from typing import final

from circuit_breaker_sdk.connections.interfaces import Route
from circuit_breaker_sdk.protocol.next_prefix import PrefixRoutes

__all__ = ["EventRuns"]

_READS_APART = 32  # So many reads are not decoded together, after one that could not be.


@final
class EventRuns:
    """Decode the events of one read together: the hot path where much comes.

    Example::

        runs = EventRuns()
        taken = runs.receive(messages, routes)  # the others are looked at alone
    """

    __slots__ = ("_apart",)

    def __init__(self) -> None:
        self._apart = 0

    def receive(self, messages: list[bytes], routes: PrefixRoutes[Route]) -> int:
        """Decode events of one type together; return how many messages were such, and are handed on."""
        if self._apart:
            self._apart -= 1
            return 0
        length = routes.prefix_length
        prefix, by_prefix = messages[0][:length], routes.by_prefix
        first = by_prefix[prefix] if prefix in by_prefix else None  # noqa: SIM401 (a call less)
        decode = None if first is None else first.decode_next
        if first is None or decode is None:
            return 0
        try:
            # Each from its own bytes: an event that is kept keeps no other's text alive.
            run = [*map(decode, messages)]
        except Exception:  # noqa: BLE001 (each is looked at alone, by who knows what to make of it)
            self._apart = _READS_APART
            return 0
        around = length + 1
        taken = first.receive_run(run, messages, around) if run[0].id == run[-1].id else 0
        if taken < len(run):
            taken += first.receive_mixed(run[taken:], messages[taken:], around, routes.by_id.get)
        return taken
