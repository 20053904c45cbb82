"""Keep a client and all that is made of it on one event loop, and say so where it is used on another."""

from __future__ import annotations

import asyncio
from typing import final

from circuit_breaker_sdk.errors import UsageError

__all__ = ["LoopAffinity", "check_loop"]


def check_loop(loop: asyncio.AbstractEventLoop | None) -> None:
    """Refuse a call from another event loop or thread than that of ``loop``; ``None`` refuses nothing.

    A call from no loop is let through while ``loop`` does not run: then it disturbs nothing, as between two
    calls of ``run_until_complete``.

    :raises UsageError: it says what to do.
    """
    if loop is None:
        return
    try:
        running: asyncio.AbstractEventLoop | None = asyncio.get_running_loop()
    except RuntimeError:
        running = None
    if running is loop or (running is None and not loop.is_running()):
        return
    raise UsageError(
        "a client and its subscriptions belong to the event loop they were first used on: make one for each "
        "loop, and from another thread use asyncio.run_coroutine_threadsafe(…, loop) or "
        "loop.call_soon_threadsafe(…)"
    )


@final
class LoopAffinity:
    """Remember the loop of the first use, and refuse another.

    :ivar loop: ``None`` before the first use.

    Example::

        affinity = LoopAffinity()
        affinity.enter()
    """

    __slots__ = ("loop",)

    def __init__(self) -> None:
        self.loop: asyncio.AbstractEventLoop | None = None

    def enter(self) -> None:
        """Belong to the running loop from the first call on.

        :raises UsageError: another loop is the first one.
        """
        check_loop(self.loop)
        if self.loop is None:
            self.loop = asyncio.get_running_loop()

    def check(self) -> None:
        """Refuse another loop, without belonging to this one.

        :raises UsageError: another loop is the first one.
        """
        check_loop(self.loop)
