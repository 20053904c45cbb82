"""A real server in a thread of its own, and a workflow to put on it."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path

from circuit_breaker_sdk import SyncClient
from circuit_breaker_sdk.types import ActivityInput, StateInput, Workflow
from circuit_breaker_server import Server, ServerSettings
from tests.waiting import PATIENCE_SECONDS

__all__ = ["create", "serving"]


@contextlib.contextmanager
def serving(path: Path) -> Iterator[str]:
    """Run a server in a thread; yield its URL."""
    urls: list[str] = []
    ready, done = threading.Event(), threading.Event()

    async def serve() -> None:
        async with Server(ServerSettings(port=0, data_dir=path)) as server:
            urls.append(server.url)
            ready.set()
            await asyncio.to_thread(done.wait)

    thread = threading.Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    try:
        assert ready.wait(PATIENCE_SECONDS)
        yield urls[0]
    finally:
        done.set()
        thread.join()


def create(client: SyncClient) -> Workflow:
    """Create a workflow of two states."""
    return client.workflows.create_workflow(
        name="Review",
        initial_state="draft",
        states=[StateInput(id="draft", name="Draft"), StateInput(id="approved", name="Approved")],
        activities=[ActivityInput(id="approve", from_states=["draft"], to_state="approved")],
    )
