"""Stream a completion, piece by piece, without asyncio: python llm_stream.py [URL]."""

import sys

from circuit_breaker_sdk import SyncClient
from circuit_breaker_sdk.types import ChatMessageInput

URL = sys.argv[1] if len(sys.argv) > 1 else "ws://localhost:4000/graphql"

with SyncClient(URL) as client:
    # The built-in model says the prompt back; any model of a configured provider works the same.
    messages = [ChatMessageInput(role="user", content="One call, no race, every piece in order.")]
    with client.llm.stream(model="echo", messages=messages, user="ada") as stream:
        for chunk in stream:
            print(chunk.content, end="", flush=True)
        answer = stream.response()
if answer.usage is not None:
    print(f"\n{answer.usage.total_tokens} tokens, {answer.usage.estimated_cost:.6f} USD")
