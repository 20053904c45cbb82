"""Follow a workflow and what a user spends until Ctrl-C, without asyncio.

Usage: python workflow_and_costs.py URL WORKFLOW USER.
"""

import signal
import sys
import threading

from circuit_breaker_sdk import SyncClient
from circuit_breaker_sdk.types import CostUpdate, WorkflowEvent

if len(sys.argv) != 4:
    sys.exit(__doc__)
URL, WORKFLOW_ID, USER_ID = sys.argv[1:]
stop = threading.Event()
signal.signal(signal.SIGINT, lambda *_: stop.set())


def show(item: WorkflowEvent | CostUpdate) -> None:
    match item:
        case WorkflowEvent() as event:
            print("event:", event.type, event.message, flush=True)
        case CostUpdate() as update:
            print("cost:", update.amount, update.service, flush=True)


with SyncClient(URL) as client:
    # One thread of the client's own handles the events of both streams, one after the other.
    client.subscriptions.workflow_events(workflow_id=WORKFLOW_ID).on_data(show)
    client.subscriptions.cost_updates(user_id=USER_ID).on_data(show)
    print("following", flush=True)
    stop.wait()
print("done")
