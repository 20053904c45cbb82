"""Keys of what has ended, in the order of the ends, so that old ones are forgotten first."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from datetime import timedelta
from typing import Final, final

from circuit_breaker_server.engine.timestamps import parse_timestamp, timestamp

__all__ = ["KEPT", "EndedKeys"]

KEPT: Final = timedelta(hours=24)
"""The time for which a completion, a run or a session can still be read after its end."""


@final
class EndedKeys:
    """The keys of one table whose entries have ended.

    Only what has ended is in it: an entry that never ends does not keep younger ones from being forgotten.

    Example::

        ended.put("c1", "2030-01-01T00:00:00.000Z")
        for key in ended.take_old("2030-01-02T00:00:00.001Z"):
            table.remove(key)
    """

    def __init__(self) -> None:
        # A plain dict would look over the places of all that it has forgotten, to find its oldest.
        self._ended: OrderedDict[str, str] = OrderedDict()

    def restore(self, ended: Iterable[tuple[str, str | None]]) -> None:
        """Begin with the keys of a snapshot, each with the time of its end (``None``: it has not ended)."""
        known = ((key, at) for key, at in ended if at is not None)
        self._ended = OrderedDict(sorted(known, key=lambda each: each[1]))

    def put(self, key: str, at: str) -> None:
        """Note an end; ``at`` is the time of its record."""
        self._ended[key] = at
        self._ended.move_to_end(key)

    def take_old(self, now: str) -> list[str]:
        """Return, and forget, the keys of what ended more than :data:`KEPT` before a record's time."""
        oldest = timestamp(parse_timestamp(now) - KEPT)
        old = []
        for key, at in self._ended.items():
            if at >= oldest:
                break
            old.append(key)
        for key in old:
            del self._ended[key]
        return old
