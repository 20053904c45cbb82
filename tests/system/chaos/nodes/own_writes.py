"""What a client has written at one node, it reads at another."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Final

from circuit_breaker_sdk import Client
from tests.system.chaos.nodes.node_world import NodeWorld
from tests.system.chaos.result import Result, percentiles

__all__ = ["own_writes"]

_PAIRS: Final = 20_000
_SHORT_PAIRS: Final = 300
_CLIENTS: Final = 12
_READ: Final = "query Read($id: String!) { resource(id: $id) { id } }"


async def own_writes(directory: Path, seed: int, *, long: bool) -> Result:
    """Mutate at one node and query at another through one client, 300 (20,000) times: no answer is stale.

    The client turns to the next URL between the two, as it does when a connection is lost.
    """
    result = Result(experiment="own writes", seed=seed)
    pairs = _PAIRS if long else _SHORT_PAIRS
    taken: list[float] = []
    stale = 0
    async with NodeWorld(directory, seed=seed) as world:

        async def lane(number: int) -> None:
            nonlocal stale
            async with Client(list(world.urls)) as client:
                executor = client._parts.executor
                for n in range(number, pairs, _CLIENTS):
                    executor._serving = n % len(world.urls)
                    made = await client.workflows.create_resource(workflow_id=world.workflow, data={"n": n})
                    executor._serving = (n + 1) % len(world.urls)
                    began = time.monotonic()
                    read = await client.execute(_READ, {"id": made.id})
                    taken.append(time.monotonic() - began)
                    result.events += 1
                    stale += (read["resource"] or {}).get("id") != made.id

        await asyncio.gather(*map(lane, range(_CLIENTS)))
    result.recovery_ms = percentiles(taken)
    result.detail |= {"pairs": result.events, "stale": stale, "query, ms": result.recovery_ms}
    result.require(result.events == pairs, f"{result.events} of {pairs} pairs were measured")
    result.require(not stale, f"{stale} answers were stale")
    return result
