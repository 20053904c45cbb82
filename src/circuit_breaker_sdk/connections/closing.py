"""Close several parts side by side: each has its turn, whatever another raises and however long it takes."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Iterable
from typing import Any

from circuit_breaker_sdk.observability import log

__all__ = ["close_each"]

# How long a part that was cancelled may take to drop what it holds.
_GRACE_SECONDS = 0.25


async def close_each(closings: Iterable[Coroutine[Any, Any, None]], *, seconds: float | None = None) -> None:
    """Run them side by side to their ends; then raise what the first that failed has raised.

    Those that have not ended after ``seconds``, and all when the caller is cancelled, are cancelled: they
    drop what they hold instead of closing it in peace.
    """
    tasks = [asyncio.ensure_future(closing) for closing in closings]
    if not tasks:
        return
    try:
        await asyncio.wait(tasks, timeout=seconds)
    finally:
        late = [task for task in tasks if not task.done()]
        for task in late:
            task.cancel()
        if late:
            await asyncio.wait(late, timeout=_GRACE_SECONDS)
            log(logging.WARNING, "not all was closed in time", parts=len(late))
    failures = [error for task in tasks if (error := _failure(task)) is not None]
    for error in failures:
        log(logging.ERROR, "closing a part failed", error=repr(error))
    if failures:
        raise failures[0]


def _failure(task: asyncio.Future[None]) -> BaseException | None:
    return task.exception() if task.done() and not task.cancelled() else None
