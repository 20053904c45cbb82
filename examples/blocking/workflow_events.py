"""Follow what happens in a workflow, with a handler, without asyncio: python workflow_events.py [URL]."""

import sys
import threading

from circuit_breaker_sdk import SyncClient
from circuit_breaker_sdk.types import ActivityInput, StateInput, WorkflowEvent, WorkflowEventType

URL = sys.argv[1] if len(sys.argv) > 1 else "ws://localhost:4000/graphql"
done = threading.Event()


def on_event(event: WorkflowEvent) -> None:
    print(event.type, "-", event.message)
    if event.type == WorkflowEventType.RESOURCE_STATE_CHANGED:
        done.set()


with SyncClient(URL) as client:
    workflow = client.workflows.create_workflow(
        name="Deployment",
        initial_state="built",
        states=[StateInput(id="built", name="Built"), StateInput(id="live", name="Live")],
        activities=[ActivityInput(id="deploy", from_states=["built"], to_state="live")],
    )
    # The handler is called in a thread of the client's own.
    client.workflows.subscribe_workflow_events(workflow_id=workflow.id).on_data(on_event)
    service = client.workflows.create_resource(workflow_id=workflow.id)
    client.workflows.execute_activity(resource_id=service.id, activity_id="deploy")
    done.wait()
