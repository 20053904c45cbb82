"""Follow a resource and a completion until Ctrl-C, without asyncio.

Usage: python resource_and_llm.py URL RESOURCE_ID REQUEST_ID.
"""

import signal
import sys
import threading

from circuit_breaker_sdk import SyncClient

if len(sys.argv) != 4:
    sys.exit(__doc__)
URL, RESOURCE_ID, REQUEST_ID = sys.argv[1:]
stop = threading.Event()
signal.signal(signal.SIGINT, lambda *_: stop.set())

with SyncClient.builder().base_url(URL).build() as client:
    updates = client.subscriptions.resource_updates(resource_id=RESOURCE_ID)
    updates.on_data(lambda resource: print("resource is", resource.state, flush=True))
    chunks = client.subscriptions.llm_stream(REQUEST_ID)
    chunks.on_data(lambda chunk: print("chunk:", chunk.content, flush=True))
    print("following", flush=True)
    stop.wait()
print("done")
