"""Call a function for each of several, so that what one raises keeps no other from its turn."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

from circuit_breaker_sdk.observability import log

__all__ = ["await_for", "do_for", "do_for_each"]

T = TypeVar("T")


def do_for(one: T, do: Callable[[T], object], what: str) -> bool:
    """Call ``do`` with one of several; log what it raises. Return whether it returned.

    Every loop over subscriptions or connections that tells them something goes through here: an exception
    for one is a fault to report, but those behind it must not stay untold.
    """
    try:
        do(one)
    except Exception as error:  # noqa: BLE001 (whatever it was, the others have their turn)
        _report(what, error)
        return False
    return True


async def await_for(one: T, do: Callable[[T], Awaitable[object]], what: str) -> bool:
    """Do the same with a coroutine function; a cancellation is the caller's and goes on."""
    try:
        await do(one)
    except Exception as error:  # noqa: BLE001 (as above)
        _report(what, error)
        return False
    return True


def do_for_each(those: Iterable[T], do: Callable[[T], object], what: str) -> None:
    """Call ``do`` with each as they are now: they may come and go meanwhile."""
    for one in tuple(those):
        do_for(one, do, what)


def _report(what: str, error: Exception) -> None:
    log(logging.ERROR, f"{what} failed for one of several", error=repr(error))
