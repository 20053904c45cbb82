"""Watch a document on its way to approved, without asyncio: python first.py [URL]."""

import sys

from circuit_breaker_sdk import SyncClient
from circuit_breaker_sdk.types import ActivityInput, StateInput

URL = sys.argv[1] if len(sys.argv) > 1 else "ws://localhost:4000/graphql"

with SyncClient(URL) as client:
    workflow = client.workflows.create_workflow(
        name="Document review",
        initial_state="draft",
        states=[StateInput(id=id_, name=id_.title()) for id_ in ("draft", "review", "approved")],
        activities=[
            ActivityInput(id="submit", from_states=["draft"], to_state="review"),
            ActivityInput(id="approve", from_states=["review"], to_state="approved"),
        ],
    )
    document = client.workflows.create_resource(workflow_id=workflow.id, data={"title": "Hello"})

    with client.workflows.subscribe_resource_updates(resource_id=document.id) as updates:
        for activity in ("submit", "approve"):
            client.workflows.execute_activity(resource_id=document.id, activity_id=activity)
        for resource in updates:
            print(resource.state)
            if resource.state == "approved":
                break
        try:
            updates.next(timeout=0.2)
        except TimeoutError:
            print("nothing more")
