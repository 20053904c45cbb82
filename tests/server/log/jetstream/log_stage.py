"""Logs on brokers for the tests of this directory, and what looks at a broker beside them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, final

import nats
from nats.aio.client import Client as NatsClient

from circuit_breaker_sdk.testing import FaultProxy
from circuit_breaker_server.log.event_log import NewRecord, Record
from circuit_breaker_server.log.jetstream import JetStreamEventLog
from tests.conformance.nats_server import NatsServer

NAME = "events"


def new(name: str = "s", data: bytes = b"{}", *, expected: int | None = None) -> NewRecord:
    return NewRecord(subject=name, id=uuid.uuid4().hex, data=data, expected=expected)


@contextlib.asynccontextmanager
async def opened(
    url: str, *, replicas: int = 1, patience_seconds: float = 30.0
) -> AsyncIterator[JetStreamEventLog]:
    log = await JetStreamEventLog.open(
        url, name=NAME, replicas=replicas, write_patience_seconds=patience_seconds
    )
    try:
        yield log
    finally:
        await log.aclose()


@contextlib.asynccontextmanager
async def opened_through_proxy(
    server: NatsServer, *, patience_seconds: float = 30.0
) -> AsyncIterator[tuple[JetStreamEventLog, FaultProxy]]:
    async with FaultProxy("127.0.0.1", server.port) as proxy:
        url = f"nats://127.0.0.1:{proxy.port}"
        async with opened(url, patience_seconds=patience_seconds) as log:
            yield log, proxy


@contextlib.asynccontextmanager
async def connected(url: str) -> AsyncIterator[NatsClient]:
    client = await nats.connect(url.split(","))
    try:
        yield client
    finally:
        await client.close()


async def api(client: NatsClient, name: str, body: dict[str, object] | None = None) -> dict[str, Any]:
    message = await client.request(f"$JS.API.{name}", json.dumps(body or {}).encode(), timeout=5)
    answer: dict[str, Any] = json.loads(message.data)
    assert "error" not in answer, answer
    return answer


@final
class Watch:
    """What a tail has seen, and a way to wait for it."""

    def __init__(self, log: JetStreamEventLog) -> None:
        self.records: list[Record] = []
        self._event = asyncio.Event()
        log.tail(self._see)

    def _see(self, records: Sequence[Record]) -> None:
        self.records += records
        self._event.set()

    async def until(self, holds: Callable[[list[Record]], bool]) -> list[Record]:
        while not holds(self.records):
            self._event.clear()
            await self._event.wait()
        return self.records


async def everything(log: JetStreamEventLog) -> list[Record]:
    return [record async for record in log.scan(after=0)]


async def until_disconnected(log: JetStreamEventLog) -> None:
    turns = asyncio.get_running_loop()
    while log.is_connected:
        turn = turns.create_future()
        turns.call_soon(turn.set_result, None)
        await turn
