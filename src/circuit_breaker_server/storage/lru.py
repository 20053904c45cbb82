"""A bounded cache of the most recently used values."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar, final

__all__ = ["RecentlyUsed"]

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


@final
class RecentlyUsed(Generic[K, V]):
    """A cache of values by key; it drops the least recently used ones first.

    :ivar max_entries: the most values that are kept.
    :ivar max_characters: the most characters of text that all values may represent; a value of more than an
        eighth of it is not kept.

    Example::

        kept: RecentlyUsed[str, Document] = RecentlyUsed(max_entries=1000, max_characters=512 * 1024)
        kept.put(query, document, characters=len(query))
        kept.get(query)
    """

    def __init__(self, *, max_entries: int, max_characters: int) -> None:
        self.max_entries = max_entries
        self.max_characters = max_characters
        self._kept: OrderedDict[K, tuple[V, int]] = OrderedDict()
        self._characters = 0

    def __len__(self) -> int:
        """Return the number of values that are kept."""
        return len(self._kept)

    def get(self, key: K) -> V | None:
        """Return a value, which counts as used now; ``None`` if it is not kept."""
        found = self._kept.get(key)
        if found is None:
            return None
        self._kept.move_to_end(key)
        return found[0]

    def put(self, key: K, value: V, *, characters: int) -> None:
        """Keep the value of a key that is not in the cache, and drop the oldest values above the bounds."""
        if characters > self.max_characters // 8:
            return
        self._kept[key] = value, characters
        self._characters += characters
        while len(self._kept) > self.max_entries or self._characters > self.max_characters:
            _, (_, gone) = self._kept.popitem(last=False)
            self._characters -= gone

    def clear(self) -> None:
        """Keep nothing."""
        self._kept.clear()
        self._characters = 0
