"""Futures that count how often they are compared: a search through many of them shows."""

from __future__ import annotations

import asyncio
from typing import final

import pytest

__all__ = ["CountedFuture", "count_comparisons"]


@final
class CountedFuture(asyncio.Future[None]):
    """A future that counts comparisons with others; none is made where it is found by its hash."""

    comparisons = 0

    def __eq__(self, other: object) -> bool:
        CountedFuture.comparisons += 1
        return self is other

    __hash__ = asyncio.Future.__hash__


def count_comparisons(monkeypatch: pytest.MonkeyPatch) -> type[CountedFuture]:
    """Let the running loop make counted futures, and count from 0."""
    loop = asyncio.get_running_loop()
    monkeypatch.setattr(loop, "create_future", lambda: CountedFuture(loop=loop))
    monkeypatch.setattr(CountedFuture, "comparisons", 0)
    return CountedFuture
