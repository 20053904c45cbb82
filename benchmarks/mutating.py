"""Mutations over HTTP: lanes that ask, wait for the answer and ask again."""

from __future__ import annotations

import asyncio
import json
import statistics
import time
from collections.abc import Iterator
from typing import cast, final

import uvloop

from benchmarks.machine import LOAD_CORE, on_core
from benchmarks.row import Row, Scale
from benchmarks.sending import our_server_process
from circuit_breaker_server import RateSettings

__all__ = ["mutate", "mutating"]

_LANES = 64
_DOCUMENT = "mutation Create($input: ResourceCreateInput!) { createResource(input: $input) { id state } }"
_LENGTH = b"content-length: "


@final
class _Lane(asyncio.Protocol):
    """One connection that is kept; every answer is looked at."""

    def __init__(self, request: bytes, left: list[int], done: asyncio.Future[None]) -> None:
        self._request = request
        self._left = left
        self._done = done
        self._received = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def ask(self) -> None:
        """Send the request."""
        if self._transport is not None and self._left[0] > 0:
            self._left[0] -= 1
            self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, end, body = self._received.partition(b"\r\n\r\n")
        if not end:
            return
        at = head.lower().index(_LENGTH) + len(_LENGTH)
        if len(body) < int(head[at:].partition(b"\r\n")[0]):
            return
        self._received = b""
        if b'"createResource":{' not in body:
            if not self._done.done():
                self._done.set_exception(RuntimeError(f"it did not happen: {body[:200]!r}"))
            return
        self._left[1] -= 1
        if self._left[1] == 0:
            self._done.set_result(None)
        else:
            self.ask()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._done.done():
            self._done.set_exception(exc or RuntimeError("the server closed"))


async def mutate(port: int, workflow: str, count: int) -> float:
    """Make so many resources, in as many lanes as there are; return mutations/s."""
    loop = asyncio.get_running_loop()
    given = {"workflowId": workflow, "data": {"title": "Quarterly plan", "revision": 1}, "metadata": {}}
    body = json.dumps({"query": _DOCUMENT, "variables": {"input": given}}).encode()
    request = (
        b"POST /graphql HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        b"Accept: application/graphql-response+json\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
    )
    left, done = [count, count], loop.create_future()
    opened = [
        await loop.create_connection(lambda: _Lane(request, left, done), "127.0.0.1", port)
        for _ in range(_LANES)
    ]
    began = time.perf_counter()
    for _, lane in opened:
        lane.ask()
    await done
    seconds = time.perf_counter() - began
    for transport, _ in opened:
        transport.abort()
    return count / seconds


def mutating(scale: Scale) -> Iterator[Row]:
    """Yield the row of mutations over HTTP."""
    rates = []
    # What the lanes ask for is more than one principal may.
    unlimited = RateSettings(operations_per_second=None)
    with on_core(LOAD_CORE), our_server_process(rates=unlimited) as server:
        (workflow,) = server.call("make", workflows=1)
        for _ in range(scale.runs + 1):
            count = scale.pick(10_000, 200)
            rates.append(uvloop.run(mutate(server.call("port"), workflow, count)))
    yield Row(
        benchmark=f"HTTP mutations, durable, {_LANES} lanes",
        unit="mutations/s",
        ours=round(statistics.median(rates[1:])),
        settings={
            "mutation": "createResource; every answer after its sync",
            "connections": "kept",
            "operations_per_second": None,
        },
    )
