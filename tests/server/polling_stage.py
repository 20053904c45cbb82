"""Polls over real HTTP, on the scripted log and gateway."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import final

import aiohttp
import msgspec

from circuit_breaker_server.endpoints.long_poll.polls import Polls
from circuit_breaker_server.engine.events import Selection
from circuit_breaker_server.gateway.gateway import Gateway
from circuit_breaker_server.gateway.pacing import Pacing
from circuit_breaker_server.security.authentication import Authenticator
from tests.server.gateway import worlds
from tests.server.gateway.worlds import ALL_THINGS, Payload, ScriptedLog
from tests.server.http_stage import http_stage


@final
class Result(msgspec.Struct):
    """What a poll says of one operation."""

    events: list[Payload]
    cursor: str | None
    done: bool
    errors: list[dict[str, object]] = []

    @property
    def numbers(self) -> list[object]:
        return [event["data"]["things"]["n"] for event in self.events]

    @property
    def after(self) -> str:
        assert self.cursor is not None
        return self.cursor

    @property
    def error(self) -> dict[str, object]:
        (error,) = self.errors
        return error

    @property
    def extensions(self) -> dict[str, str]:
        return msgspec.convert(self.error["extensions"], dict[str, str])


def operation(
    query: str = ALL_THINGS, variables: Mapping[str, object] | None = None, *, after: object = None
) -> dict[str, object]:
    asked: dict[str, object] = {"query": query}
    if variables is not None:
        asked["variables"] = variables
    if after is not None:
        asked["extensions"] = {"resume": {"after": after}}
    return asked


async def poll_one(
    http: aiohttp.ClientSession, url: str, asked: Mapping[str, object], *, wait_ms: int = 25_000
) -> Result:
    async with http.post(url, json={**asked, "waitMs": wait_ms}) as answer:
        assert (answer.status, answer.content_type) == (200, "application/json")
        assert answer.headers["Cache-Control"] == "no-store"
        return msgspec.json.decode(await answer.read(), type=Result)


@final
class PollStage:
    """A gateway behind a port, and HTTP to it. Waits are long: a test that waits for one in vain fails."""

    def __init__(
        self, log: ScriptedLog, gateway: Gateway, polls: Polls, http: aiohttp.ClientSession, url: str
    ) -> None:
        self.log = log
        self.gateway = gateway
        self.polls = polls
        self.http = http
        self.url = url

    async def poll(
        self,
        query: str = ALL_THINGS,
        variables: Mapping[str, object] | None = None,
        *,
        after: object = None,
        wait_ms: int = 25_000,
    ) -> Result:
        return await poll_one(self.http, self.url, operation(query, variables, after=after), wait_ms=wait_ms)

    async def poll_many(self, *asked: Mapping[str, object], wait_ms: int = 25_000) -> Sequence[Result]:
        async with self.http.post(self.url, json={"operations": asked, "waitMs": wait_ms}) as answer:
            assert answer.status == 200
            body = msgspec.json.decode(await answer.read(), type=dict[str, list[Result]])
        assert set(body) == {"results"}
        return body["results"]


@contextlib.asynccontextmanager
async def polling(
    log: ScriptedLog | None = None,
    *,
    select: Callable[[str, Mapping[str, object]], Selection] = worlds.select,
    ring_size: int = 1024,
    page_records: int = 256,
    authenticator: Authenticator | None = None,
    pacing: Pacing | None = None,
    max_operations: int = 10,
    **more: float,
) -> AsyncIterator[PollStage]:
    async with http_stage(
        log,
        select=select,
        ring_size=ring_size,
        page_records=page_records,
        authenticator=authenticator,
        pacing=pacing,
        settings={"max_operations": max_operations, "max_body_bytes": 100_000, **more},
    ) as stage:
        url = f"{stage.root}/graphql/poll"
        yield PollStage(stage.log, stage.gateway, stage.endpoints.polls, stage.http, url)
