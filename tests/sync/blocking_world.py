"""A fake server on a loop of its own, told what to do from the test's thread."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from circuit_breaker_sdk.testing import FakeServer
from tests.waiting import PATIENCE_SECONDS

__all__ = ["TICKS", "World", "world"]

T = TypeVar("T")

TICKS = "subscription { ticks }"


class World:
    """The server, for a thread."""

    def __init__(self, server: FakeServer, loop: asyncio.AbstractEventLoop) -> None:
        self.server = server
        self.url = server.url
        self._loop = loop

    def do(self, function: Callable[..., T], *arguments: Any) -> T:
        """Call a method of the server on its loop."""

        async def run() -> T:
            return function(*arguments)

        return asyncio.run_coroutine_threadsafe(run(), self._loop).result(PATIENCE_SECONDS)

    def ticks(self, *numbers: int) -> None:
        """Publish numbers."""

        def publish() -> None:
            for number in numbers:
                self.server.publish({"ticks": number})

        self.do(publish)


@contextlib.contextmanager
def world() -> Iterator[World]:
    """Run a fake server beside the test."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="fake-server")
    thread.start()
    try:
        server = FakeServer()
        asyncio.run_coroutine_threadsafe(server.start(), loop).result(PATIENCE_SECONDS)
        try:
            yield World(server, loop)
        finally:
            asyncio.run_coroutine_threadsafe(server.aclose(), loop).result(PATIENCE_SECONDS)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
