"""The marks of a log with one writer, in its memory: a writer that starts has decided nothing before."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, final

from circuit_breaker_server.log.event_log import ExpectationFailed, Guards

__all__ = ["Marks"]

_GENERATION: Final = 65_536


@final
class Marks:
    """Remember where the newest names were last marked: 65,536 of them, and up to as many more.

    :param began_at: the log's last offset when its writer started: older decisions are refused.

    Example::

        marks = Marks(began_at=0)
        assert marks.refusal(Guards(decided_at=0, unmarked=("claim.k",)), {}) is None
        marks.put({"claim.k": 1})
    """

    __slots__ = ("_floor", "_newest_of_old", "_old", "_young")

    def __init__(self, *, began_at: int) -> None:
        self._young: dict[str, int] = {}
        self._old: dict[str, int] = {}
        self._floor = self._newest_of_old = began_at

    def refusal(self, guards: Guards, uncommitted: Mapping[str, int]) -> ExpectationFailed | None:
        """Return what a record is refused with, ``None`` where its guards hold.

        :param uncommitted: the marks of records before it in its group.
        """
        decided_at = guards.decided_at
        for name in guards.unmarked:
            at = uncommitted.get(name) or self._young.get(name) or self._old.get(name, self._floor)
            if at > decided_at:
                return ExpectationFailed(name, expected=decided_at, actual=at)
        return None

    def put(self, committed: Mapping[str, int]) -> None:
        """Remember the marks of records that are in the log."""
        self._young.update(committed)
        if len(self._young) >= _GENERATION:
            self._floor = self._newest_of_old
            self._newest_of_old = max(self._young.values())
            self._old, self._young = self._young, {}
