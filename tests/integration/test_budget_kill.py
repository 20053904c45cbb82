"""A budget warns once and is exhausted once, though the server is killed among fifty completions at once."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path
from urllib.parse import urlsplit

import msgspec
import pytest

from circuit_breaker_sdk import Client, ConnectionFailed
from circuit_breaker_sdk.types import ChatMessageInput
from tests.integration.live_server import serving
from tests.server.stage import Client as Raw
from tests.transports.peers import raw_client

COMPLETIONS = 50
PER_COMPLETION = 0.000_003
LIMIT = 20 * PER_COMPLETION  # less than the last life alone spends
COSTS = 'subscription { costUpdates(userId: "ada") { eventType totalCost costDelta } }'


async def complete(client: Client, request_id: str) -> bool:
    """Ask for a completion; tell whether it was answered."""
    try:
        await client.llm.chat_completion(
            model="echo",
            messages=[ChatMessageInput(role="user", content="w")],
            user="ada",
            request_id=request_id,
        )
    except ConnectionFailed:
        return False
    return True


async def all_costs(url: str) -> list[dict[str, object]]:
    """Read every event from the log's start up to the end marker: a credit."""
    client = Raw(await raw_client(urlsplit(url).port or 0))
    try:
        assert "101" in await client.peer.read_head()
        ack = await client.init()
        epoch = msgspec.convert(ack["payload"], dict[str, dict[str, object]])["resume"]["epoch"]
        client.subscribe("c", COSTS, after=f"{epoch}.0.0.00000000")
        found: list[dict[str, object]] = []
        while not found or found[-1]["eventType"] != "CREDIT_APPLIED":
            message = await client.receive()
            if message["type"] == "next":
                payload = msgspec.convert(message["payload"], dict[str, dict[str, dict[str, object]]])
                found.append(payload["data"]["costUpdates"])
        return found
    finally:
        await client.leave()


@pytest.mark.timeout(120)
async def test_warning_and_exhaustion_come_once_across_kills(tmp_path: Path) -> None:
    answered = 0
    for life in range(3):
        with serving(tmp_path) as server:
            async with Client(server.url) as client:
                if life == 0:
                    await client.analytics.set_budget(
                        user_id="ada", limit=LIMIT, period="monthly", warning_threshold=0.5
                    )
                asking = [
                    asyncio.create_task(complete(client, f"r{life}-{n}")) for n in range(COMPLETIONS // 2)
                ]
                if life < 2:
                    # In the middle of them: some are answered, some are on their way, some not yet sent.
                    await asyncio.wait(asking, return_when=asyncio.FIRST_COMPLETED)
                    server.kill()
                answered += sum(await asyncio.gather(*asking))
                if life == 2:
                    # What was recorded before a kill was charged at the next start at the latest.
                    await client.analytics.apply_credit(user_id="ada", amount=1.0)
                    costs = await all_costs(server.url)
    kinds = Counter(str(event["eventType"]) for event in costs)
    assert kinds["BUDGET_WARNING"] == kinds["BUDGET_EXHAUSTED"] == 1
    assert answered <= kinds["COST_INCURRED"] <= 3 * (COMPLETIONS // 2)
    assert kinds["COST_INCURRED"] >= 20, "the budget was exhausted"
    totals = [event["totalCost"] for event in costs if event["eventType"] == "COST_INCURRED"]
    assert totals == pytest.approx([PER_COMPLETION * n for n in range(1, len(totals) + 1)])
