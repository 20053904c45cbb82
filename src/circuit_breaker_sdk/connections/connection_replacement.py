"""Before a token ends, the next one is asked for and shown on a new connection."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from circuit_breaker_sdk.connections.tokens import Tokens
from circuit_breaker_sdk.errors import TransportError, UsageError
from circuit_breaker_sdk.observability import log

__all__ = ["rotate"]

# How often the token's end is looked up, and how soon a token that could not be had is asked for again.
_LOOK_SECONDS = 60.0
_RENEW_SECONDS = 1.0


async def rotate(
    tokens: Tokens, shown: Callable[[], str | None], replace: Callable[[], Awaitable[None]]
) -> None:
    """Get the next token in time and call ``replace`` for a connection that shows it; until cancelled.

    ``shown`` is the token that the present connection was opened with. Where several connections share the
    tokens, one of them asks for the next, and all are replaced.
    """
    while True:
        seconds = tokens.seconds_to_refresh()
        if seconds is None:
            # It has no known end, or is not ours to renew; a refused one is renewed where it is refused.
            seconds = _LOOK_SECONDS
        await asyncio.sleep(min(seconds, _LOOK_SECONDS))
        due = tokens.seconds_to_refresh()
        if due is None or (due > 0 and tokens.current == shown()):
            continue
        try:
            if due <= 0:
                await tokens.refresh()
            await replace()
        except (TransportError, UsageError) as error:
            log(logging.WARNING, "token not renewed yet", error=error)
            await asyncio.sleep(_RENEW_SECONDS)
