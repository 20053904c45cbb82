"""The last offsets of subjects, remembered so that a writer need not look them up."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, final

from circuit_breaker_server.log.event_log import Record

__all__ = ["LastOffsets"]

_GENERATION: Final = 16_384
_LONGEST: Final = 256


@final
class LastOffsets:
    """Remember where the subjects that were written to of late end: twice 16,384 of them at most.

    Subjects of more than 256 characters are not remembered. Two generations stand for an order of use: where
    the younger one is full it becomes the older one, and what was in that is forgotten. Only what is
    committed may be put in; a trim changes nothing here, since who reads knows the first offset that is kept.

    Example::

        offsets.put([record])
        assert offsets.get(record.subject) == record.offset
    """

    __slots__ = ("_old", "_young")

    def __init__(self) -> None:
        self._young: dict[str, int] = {}
        self._old: dict[str, int] = {}

    def get(self, subject: str) -> int | None:
        """Return the offset of the subject's last record, ``None`` where it is not remembered."""
        offset = self._young.get(subject)
        return self._old.get(subject) if offset is None else offset

    def put(self, committed: Iterable[Record]) -> None:
        """Remember where the subjects of records that are in the log end."""
        self._young.update([(r.subject, r.offset) for r in committed if len(r.subject) <= _LONGEST])
        if len(self._young) >= _GENERATION:
            self._old, self._young = self._young, {}

    def clear(self) -> None:
        """Forget everything."""
        self._young.clear()
        self._old.clear()
