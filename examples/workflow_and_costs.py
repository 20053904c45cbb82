"""Follow a workflow and what a user spends until Ctrl-C: python workflow_and_costs.py URL WORKFLOW USER."""

import asyncio
import signal
import sys

from circuit_breaker_sdk import BatchSubscriptionManager, Client
from circuit_breaker_sdk.types import CostUpdate, WorkflowEvent

if len(sys.argv) != 4:
    sys.exit(__doc__)
URL, WORKFLOW_ID, USER_ID = sys.argv[1:]


async def show(batch: BatchSubscriptionManager) -> None:
    async for item in batch:
        match item.event:
            case WorkflowEvent() as event:
                print("event:", event.type, event.message, flush=True)
            case CostUpdate() as update:
                print("cost:", update.amount, update.service, flush=True)


async def main() -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGINT, stop.set)

    async with Client(URL) as client, BatchSubscriptionManager() as batch:
        batch.add_subscription(client.subscriptions.workflow_events(workflow_id=WORKFLOW_ID))
        batch.add_subscription(client.subscriptions.cost_updates(user_id=USER_ID))
        await batch.subscribe_all()
        print("following", flush=True)
        showing = asyncio.create_task(show(batch))
        await stop.wait()
        showing.cancel()
    print("done")


asyncio.run(main())
