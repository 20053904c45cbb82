"""A client with several URLs, one of which falls silent: it goes on at another, and does not wait for it."""

from __future__ import annotations

from circuit_breaker_sdk import Client, Heartbeat
from circuit_breaker_sdk.testing import FakeServer, FaultProxy
from tests.waiting import until


async def test_a_server_that_is_paused_is_not_connected_to_again_first() -> None:
    """The system of a process that is stopped still accepts connections: only their answers do not come."""
    async with FakeServer() as server:
        port = int(server.url.rsplit(":", 1)[1].split("/")[0])
        async with FaultProxy("127.0.0.1", port) as one, FaultProxy("127.0.0.1", port) as other:
            urls = [f"ws://127.0.0.1:{proxy.port}/graphql" for proxy in (one, other)]
            heartbeat = Heartbeat(interval_seconds=0.2, timeout_seconds=0.2)
            async with Client(urls, heartbeat=heartbeat) as client:
                updates = await client.subscriptions.cost_updates().subscribe()
                connections = one.connections
                assert connections
                one.stall()
                await until(lambda: other.connections)
                assert one.connections == connections, "it was asked first again"
                await updates.unsubscribe()
