"""The positions in a server's log that answers have shown: another server of the cluster shows no less."""

from __future__ import annotations

from typing import Final, final

__all__ = ["HEADER", "Positions"]

HEADER: Final = "Log-Position"
"""The header of an answer: how far the server's state is. Of a request: what its answer must not be behind.

A server that has its log alone sends none."""
_MAX: Final = 8


@final
class Positions:
    """The positions that no later answer may be behind.

    They are texts that only the servers can compare. The answer to a request that named positions is behind
    none of them, so its own position stands for them; answers that came at once leave one each.

    Example::

        named = positions.named
        positions.answered(named, "7e2f…")
    """

    __slots__ = ("_seen",)

    def __init__(self) -> None:
        self._seen: dict[str, None] = {}

    @property
    def named(self) -> tuple[str, ...]:
        """The positions that a request names; empty where no server has said where it is."""
        return tuple(self._seen)

    def answered(self, named: tuple[str, ...], position: str | None) -> None:
        """Take over the position of an answer, whose request has named the others."""
        if position is None:
            return
        for each in named:
            self._seen.pop(each, None)
        self._seen[position] = None
        while len(self._seen) > _MAX:
            del self._seen[next(iter(self._seen))]
