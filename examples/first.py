"""Watch a document on its way from draft to approved: python first.py [URL]."""

import asyncio
import sys

from circuit_breaker_sdk import Client
from circuit_breaker_sdk.events import ActivityInput, StateInput

URL = sys.argv[1] if len(sys.argv) > 1 else "ws://localhost:4000/graphql"


async def main() -> None:
    async with Client(URL) as client:
        workflow = await client.workflows.create_workflow(
            name="Document review",
            initial_state="draft",
            states=[StateInput(id=id_, name=id_.title()) for id_ in ("draft", "review", "approved")],
            activities=[
                ActivityInput(id="submit", from_states=["draft"], to_state="review"),
                ActivityInput(id="approve", from_states=["review"], to_state="approved"),
            ],
        )
        document = await client.workflows.create_resource(workflow_id=workflow.id, data={"title": "Hello"})

        async with client.workflows.subscribe_resource_updates(resource_id=document.id) as updates:
            for activity in ("submit", "approve"):
                await client.workflows.execute_activity(resource_id=document.id, activity_id=activity)
            async for resource in updates:
                print(resource.state)
                if resource.state == "approved":
                    break


asyncio.run(main())
