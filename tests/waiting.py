"""Waiting for what nothing but a look from outside can tell."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

PATIENCE_SECONDS = 20.0


async def until(condition: Callable[[], object]) -> None:
    """Let the loop turn until this holds: a counter, or a state that has no observer."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not condition():  # noqa: ASYNC110 (see above)
            await asyncio.sleep(0)
