"""Follow a resource and a completion until Ctrl-C: python resource_and_llm.py URL RESOURCE_ID REQUEST_ID."""

import asyncio
import signal
import sys

from circuit_breaker_sdk import BatchSubscriptionManager, Client

if len(sys.argv) != 4:
    sys.exit(__doc__)
URL, RESOURCE_ID, REQUEST_ID = sys.argv[1:]


async def main() -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGINT, stop.set)

    client = Client.builder().base_url(URL).build()
    updates = await client.subscriptions.resource_updates().resource_id(RESOURCE_ID).subscribe()
    updates.on_update(lambda resource: print("resource is", resource.state, flush=True))
    chunks = await client.subscriptions.llm_stream().request_id(REQUEST_ID).subscribe()
    chunks.on_chunk(lambda chunk: print("chunk:", chunk.content, flush=True))

    batch = BatchSubscriptionManager()
    batch.add_subscription(updates).add_subscription(chunks)
    await batch.subscribe_all()
    print("following", flush=True)

    await stop.wait()
    await batch.unsubscribe_all()
    await client.aclose()
    print("done")


asyncio.run(main())
