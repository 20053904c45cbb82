"""Follow what happens in a workflow, with a handler: python workflow_events.py [URL]."""

import asyncio
import sys

from circuit_breaker_sdk import Client
from circuit_breaker_sdk.events import ActivityInput, StateInput
from circuit_breaker_sdk.types import WorkflowEvent, WorkflowEventType

URL = sys.argv[1] if len(sys.argv) > 1 else "ws://localhost:4000/graphql"


async def main() -> None:
    done = asyncio.Event()

    def on_event(event: WorkflowEvent) -> None:
        print(event.type, "-", event.message)
        if event.type == WorkflowEventType.RESOURCE_STATE_CHANGED:
            done.set()

    async with Client(URL) as client:
        workflow = await client.workflows.create_workflow(
            name="Deployment",
            initial_state="built",
            states=[StateInput(id="built", name="Built"), StateInput(id="live", name="Live")],
            activities=[ActivityInput(id="deploy", from_states=["built"], to_state="live")],
        )
        events = await client.workflows.subscribe_workflow_events(workflow_id=workflow.id).subscribe()
        events.on_event(on_event)
        service = await client.workflows.create_resource(workflow_id=workflow.id)
        await client.workflows.execute_activity(resource_id=service.id, activity_id="deploy")
        await done.wait()


asyncio.run(main())
