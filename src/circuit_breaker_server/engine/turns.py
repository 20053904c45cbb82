"""Turns: those who would get in each other's way go one after another.

No rule rests on it, since other servers take no turns: what counts is the offset that an append expects. It
saves attempts that would fail.
"""

from __future__ import annotations

import asyncio
from collections.abc import Hashable
from typing import Generic, TypeVar, final
from weakref import WeakValueDictionary

__all__ = ["Turns"]

K = TypeVar("K", bound=Hashable)


@final
class Turns(Generic[K]):
    """One queue for each key, there as long as someone is in it.

    Example::

        async with turns.of(workflow_id):
            ...
    """

    def __init__(self) -> None:
        self._locks: WeakValueDictionary[K, asyncio.Lock] = WeakValueDictionary()

    def of(self, key: K) -> asyncio.Lock:
        """Return what is held during a turn."""
        lock = self._locks.get(key)
        if lock is None:
            lock = self._locks[key] = asyncio.Lock()
        return lock
