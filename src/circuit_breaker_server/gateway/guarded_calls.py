"""The one guarded entrance to peers and subscriptions: what one of them raises ends that one only."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

from circuit_breaker_server.logs import get_logger

__all__ = ["call_each", "guarded", "isolate"]

logger = get_logger("gateway")

T = TypeVar("T")
R = TypeVar("R")


def guarded(
    target: T, call: Callable[[T], R], on_error: Callable[[T, Exception], object], *, otherwise: R
) -> R:
    """Call one peer or subscription and return what it returns.

    After an exception the target is ended by :func:`isolate`, and ``otherwise`` is returned: the caller never
    sees an exception of the target.

    Example::

        guarded(feed, Feed.write, end_peer, otherwise=None)
    """
    try:
        return call(target)
    except Exception as error:  # noqa: BLE001 (the target's own end; it is logged there)
        isolate(target, error, on_error)
        return otherwise


def isolate(target: T, error: Exception, on_error: Callable[[T, Exception], object]) -> None:
    """End the peer or subscription that raised ``error``: ``on_error`` does; what it raises is logged."""
    try:
        on_error(target, error)
    except Exception:
        logger.exception("end_failed", target=repr(target))


def call_each(
    targets: Iterable[T], call: Callable[[T], object], on_error: Callable[[T, Exception], object]
) -> None:
    """Call every target, through :func:`guarded`.

    A copy of the targets is walked over: a target may end itself or others within the call.

    Example::

        call_each(sessions, Session.review, lambda session, error: session.drop())
    """
    for target in tuple(targets):
        guarded(target, call, on_error, otherwise=None)
