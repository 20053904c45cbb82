"""Event streams over real HTTP, on the scripted log and gateway; and a client that reads them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from typing import Final, final

import aiohttp
import msgspec

from circuit_breaker_sdk.protocol.event_stream import EventParser, ServerSentEvent
from tests.server.gateway.worlds import ALL_THINGS
from tests.server.http_stage import HttpStage

__all__ = ["ACCEPT", "TOKEN", "Stream", "asked", "opened", "reserved"]

ACCEPT: Final = {"Accept": "text/event-stream"}
TOKEN: Final = "X-GraphQL-Event-Stream-Token"


def asked(query: str = ALL_THINGS, *, after: object = None, **more: object) -> dict[str, object]:
    extensions = {} if after is None else {"extensions": {"resume": {"after": after}}}
    return {"query": query, **extensions, **more}


@final
class Stream:
    """One open stream; it reads only when it is asked to.

    :ivar comments: how many reads brought nothing but comments.
    """

    def __init__(self, answer: aiohttp.ClientResponse) -> None:
        self.answer = answer
        self.comments = 0
        self._parser = EventParser(max_bytes=1_000_000)
        self._events: list[ServerSentEvent] = []

    async def event(self) -> ServerSentEvent:
        async with asyncio.timeout(10):
            while not self._events:
                data = await self.answer.content.readany()
                if not data:
                    raise EOFError
                self._events += self._parser.receive_data(data)
                self.comments += not self._events
        return self._events.pop(0)

    async def payload(self) -> dict[str, object]:
        event = await self.event()
        assert event.type == "next", event
        return msgspec.json.decode(event.data or b"", type=dict[str, object])

    async def number(self) -> tuple[object, str | None]:
        """The number of the next thing, and the id of its event."""
        event = await self.event()
        payload = msgspec.json.decode(event.data or b"", type=dict[str, dict[str, dict[str, object]]])
        return payload["data"]["things"]["n"], event.id

    async def signal(self) -> str:
        event = await self.event()
        assert event.data is None, event
        assert event.id is not None
        return event.id

    async def complete(self) -> None:
        assert await self.event() == ServerSentEvent("complete", b"", None)
        assert await self.answer.content.readany() == b""

    async def lost(self) -> None:
        """The stream ends, and not whole."""
        with contextlib.suppress(EOFError):
            raise AssertionError(f"the stream goes on with {await self.event()}")


@contextlib.asynccontextmanager
async def opened(
    stage: HttpStage,
    body: Mapping[str, object] | None = None,
    *,
    path: str = "/graphql",
    headers: Mapping[str, str] = ACCEPT,
) -> AsyncIterator[Stream]:
    """Open the stream of a subscription."""
    async with stage.http.post(stage.root + path, json=body or asked(), headers=headers) as answer:
        assert (answer.status, answer.content_type) == (200, "text/event-stream"), await answer.text()
        yield Stream(answer)


async def reserved(stage: HttpStage, **headers: str) -> str:
    """Reserve a stream; return its token."""
    async with stage.http.put(stage.root + "/graphql/stream", headers=headers) as answer:
        assert answer.status == 201
        return await answer.text()
