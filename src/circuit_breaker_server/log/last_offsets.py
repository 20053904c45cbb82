"""The last offsets of subjects, remembered so that a writer need not look them up."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, final

__all__ = ["LastOffsets"]

_GENERATION: Final = 16_384


@final
class LastOffsets:
    """Remember where the subjects that were written to of late end: twice 16,384 of them at most.

    Two generations stand for an order of use: where the younger one is full it becomes the older one, and
    what was in that is forgotten. Only what is committed may be put in; a trim changes nothing here, since
    who reads knows the first offset that is kept.

    Example::

        offsets.put({"resource.w.r": 17})
        assert offsets.get("resource.w.r") == 17
    """

    __slots__ = ("_old", "_young")

    def __init__(self) -> None:
        self._young: dict[str, int] = {}
        self._old: dict[str, int] = {}

    def get(self, subject: str) -> int | None:
        """Return the offset of the subject's last record, ``None`` where it is not remembered."""
        offset = self._young.get(subject)
        return self._old.get(subject) if offset is None else offset

    def put(self, committed: Mapping[str, int]) -> None:
        """Remember the last offsets of a group that is in the log."""
        self._young.update(committed)
        if len(self._young) >= _GENERATION:
            self._old, self._young = self._young, {}

    def clear(self) -> None:
        """Forget everything."""
        self._young.clear()
        self._old.clear()
