"""A client with a proxy before its server, and a health that is asked for until it says something."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

from circuit_breaker_sdk import CircuitBreakerPolicy, Client, ErrorRecoveryPolicy, Heartbeat
from circuit_breaker_sdk.observability import Health, HealthLimits, Verdict
from circuit_breaker_sdk.testing import FaultProxy
from circuit_breaker_server import Server, ServerSettings
from tests.integration.workflows import create_review_workflow
from tests.waiting import PATIENCE_SECONDS

__all__ = ["LIMITS", "World", "world"]

LIMITS = HealthLimits(consumer_seconds=0.2, silence_seconds=0.4, away_seconds=0.3, round_trip_seconds=0.2)
"""Short, so that a test need not wait."""


HEARTBEAT = Heartbeat(interval_seconds=0.1, timeout_seconds=10.0)


class World(NamedTuple):
    client: Client
    direct: Client
    proxy: FaultProxy
    workflow: str

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.proxy.port}/graphql"

    def health(self, limits: HealthLimits = LIMITS) -> Health:
        return self.client.health(limits=limits)

    async def publish(self, *numbers: int, padding: int = 0) -> None:
        for n in numbers:
            await self.direct.workflows.create_resource(
                workflow_id=self.workflow, data={"n": n, "text": "x" * padding}
            )

    async def until(self, verdict: Verdict, reason: str = "", limits: HealthLimits = LIMITS) -> Health:
        """Ask as an application does, now and then, until the verdict is this, for this reason."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while True:
                health = self.health(limits)
                if health.verdict is verdict and (not reason or any(reason in r for r in health.reasons)):
                    return health
                await asyncio.sleep(0.01)


@asynccontextmanager
async def world(
    tmp_path: Path,
    *,
    heartbeat: Heartbeat | None = HEARTBEAT,
    max_buffered_bytes: int = 1 << 26,
    transports: tuple[str, ...] = ("websocket", "poll"),
) -> AsyncIterator[World]:
    async with (
        Server(ServerSettings(port=0, data_dir=tmp_path, ring_size=4)) as server,
        FaultProxy("127.0.0.1", server.port) as proxy,
        Client(
            f"ws://127.0.0.1:{proxy.port}/graphql",
            token="a-secret",
            recovery=ErrorRecoveryPolicy(base_delay=0.01, max_delay=0.05),
            circuit_breaker=CircuitBreakerPolicy(failure_threshold=2, open_seconds=0.5),
            heartbeat=heartbeat,
            max_buffered_bytes=max_buffered_bytes,
            transports=transports,
        ) as client,
        Client(server.url) as direct,
    ):
        yield World(client, direct, proxy, (await create_review_workflow(direct)).id)
