"""Watch a budget run out: python cost_updates.py [URL]."""

import asyncio
import sys

from circuit_breaker_sdk import Client
from circuit_breaker_sdk.types import ChatMessageInput, CostEventType

URL = sys.argv[1] if len(sys.argv) > 1 else "ws://localhost:4000/graphql"
USER = "ada"


async def main() -> None:
    async with Client(URL) as client, client.analytics.subscribe_cost_updates(user_id=USER) as updates:
        await client.analytics.set_budget(user_id=USER, limit=0.000_05, period="daily", warning_threshold=0.8)
        spending = asyncio.create_task(spend(client))
        async for update in updates:
            status = update.budget.message if update.budget is not None else ""
            print(f"{update.type}: {update.amount:+.6f} USD for {update.service} ({status})")
            if update.type == CostEventType.BUDGET_EXHAUSTED:
                break
        spending.cancel()


async def spend(client: Client) -> None:
    while True:
        messages = [ChatMessageInput(role="user", content="What is left of my budget?")]
        await client.llm.chat_completion(model="echo", messages=messages, user=USER)


asyncio.run(main())
