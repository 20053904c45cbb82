"""Fallbacks of a subscription: for missing events, and for networks without WebSocket."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final, final

import msgspec

from circuit_breaker_sdk.delivery.interval_queries import Changes

__all__ = ["NO_FALLBACKS", "Fallbacks"]


@final
class Fallbacks(msgspec.Struct, frozen=True, kw_only=True):
    """Fallbacks for missing events, and for networks that let no WebSocket through.

    :ivar on_gap: told of gaps, with a ``Gap``; ``None``: a gap ends the subscription.
    :ivar snapshot: reads the present state for the handler of gaps.
    :ivar is_critical: whether it is polled for while no WebSocket gets through.
    :ivar changes: asks a query for what has changed, where there are no polls either.
    """

    on_gap: Callable[[Any], object] | None = None  # a Gap
    snapshot: Callable[[], Awaitable[object]] | None = None
    is_critical: bool = False
    changes: Changes | None = None


NO_FALLBACKS: Final = Fallbacks()
"""The default: no fallbacks."""
