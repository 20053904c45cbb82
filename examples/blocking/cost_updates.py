"""Watch a budget run out, without asyncio: python cost_updates.py [URL]."""

import sys
import threading

from circuit_breaker_sdk import SyncClient
from circuit_breaker_sdk.types import ChatMessageInput, CostEventType

URL = sys.argv[1] if len(sys.argv) > 1 else "ws://localhost:4000/graphql"
USER = "ada"
exhausted = threading.Event()


def spend(client: SyncClient) -> None:
    while not exhausted.is_set():
        messages = [ChatMessageInput(role="user", content="What is left of my budget?")]
        client.llm.chat_completion(model="echo", messages=messages, user=USER)


with SyncClient(URL) as client, client.analytics.subscribe_cost_updates(user_id=USER) as updates:
    client.analytics.set_budget(user_id=USER, limit=0.000_05, period="daily", warning_threshold=0.8)
    spending = threading.Thread(target=spend, args=(client,))  # threads may share a client
    spending.start()
    for update in updates:
        status = update.budget.message if update.budget is not None else ""
        print(f"{update.type}: {update.amount:+.6f} USD for {update.service} ({status})")
        if update.type == CostEventType.BUDGET_EXHAUSTED:
            break
    exhausted.set()
    spending.join()
