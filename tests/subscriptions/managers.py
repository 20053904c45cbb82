"""A subscription manager that is connected to a scripted server."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from circuit_breaker_sdk.config import BufferLimits, ErrorRecoveryPolicy, Timeouts
from circuit_breaker_sdk.connections import FallbackLinks, PollConnection, Supervisor
from circuit_breaker_sdk.subscriptions import Operation, SubscriptionManager
from tests.connections.raw_server import Script, settings
from tests.transports.peers import serve

__all__ = ["TICKS", "manager"]

TICKS: Final = Operation(document="subscription { tick }", type=int, label="ticks")


@asynccontextmanager
async def manager(
    script: Script, timeouts: Timeouts | None = None, *, max_retries: int | None = 0
) -> AsyncIterator[SubscriptionManager]:
    """Yield a manager that connects to a server of this script."""
    async with serve(script) as port:
        owner = Supervisor(settings(port))
        under_test = SubscriptionManager(
            owner,
            FallbackLinks([poll := PollConnection(settings(port))], rest_seconds=2.0),
            buffer=BufferLimits(),
            timeouts=timeouts or Timeouts(),
            policy=ErrorRecoveryPolicy(max_retries=max_retries, base_delay=0.01),
        )
        try:
            yield under_test
        finally:
            await under_test.aclose()
            await poll.aclose()
            await owner.aclose()
