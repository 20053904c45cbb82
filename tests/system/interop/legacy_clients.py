"""The client of subscriptions-transport-ws, which speaks the legacy protocol only, with our server."""

from __future__ import annotations

import asyncio
import itertools
import tempfile
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any, final

from tests.system.chaos.world import ServerProcess
from tests.system.interop.cells import Table, require, until
from tests.system.interop.node import NodeClient, node_client
from tests.system.interop.our_server import UPDATES, World, world_of

__all__ = ["run_legacy_client"]

_CLIENT = "subscriptions-transport-ws"
_SETTINGS: dict[str, float | int | str] = {"ping_seconds": 0.2}
_CUTS = 5
_QUIET_SECONDS = 0.3
_IDLE_SECONDS = 1.5
_STREAM = "subscription($r: String!) { llmStream(requestId: $r) { eventType delta isComplete } }"
_COMPLETION = "mutation($i: LlmChatCompletionInput!) { llmChatCompletion(input: $i) { id } }"


@final
class _Stage:
    """Our server in a process of its own."""

    def __init__(self, server: ServerProcess, world: World) -> None:
        self.server = server
        self.world = world

    def client(self) -> AbstractAsyncContextManager[NodeClient]:
        return node_client("legacy_client.mjs", f"ws://127.0.0.1:{self.world.proxy.port}/graphql")

    @asynccontextmanager
    async def live(self) -> AsyncIterator[NodeClient]:
        """Run a client with a subscription, *live*, that has had events and gets more all the time."""
        async with self.client() as client, self.world.publisher.publishing():
            client.subscribe("live", UPDATES, self.world.variables)
            await _more(client)
            yield client


async def _more(client: NodeClient, name: str = "live") -> None:
    count = len(client.payloads(name))
    await until(lambda: len(client.payloads(name)) >= count + 3, f"{name!r} gets no events")


def _require_no_hole(numbers: list[int]) -> None:
    require(all(b == a + 1 for a, b in itertools.pairwise(numbers)), f"not in order: {numbers}")


async def _events(stage: _Stage) -> None:
    world = stage.world
    async with stage.live() as client, world.other.publishing():
        client.subscribe("other", UPDATES, {"w": world.other.workflow})
        await until(lambda: len(client.payloads("other")) >= 20, "the other workflow has no events")
        await until(lambda: len(client.payloads("live")) >= 50, "there are no 50 events")
        _require_no_hole(client.numbers("live"))
        _require_no_hole(client.numbers("other"))
        require(client.opened == 1, f"it was connected {client.opened} times")


async def _unknown_field(stage: _Stage) -> None:
    await _refused(stage, "subscription { resourceUpdates { nothing } }", "nothing")


async def _missing_variable(stage: _Stage) -> None:
    await _refused(stage, UPDATES, "$w")


async def _syntax_error(stage: _Stage) -> None:
    await _refused(stage, "subscription {", "Syntax Error")


async def _refused(stage: _Stage, query: str, text: str) -> None:
    """Subscribe to what is refused, beside a subscription that is live."""
    async with stage.live() as client:
        client.subscribe("bad", query)
        await until(lambda: client.end("bad"), "it does not end")
        require(text in str(client.end("bad")), f"it ends with {client.end('bad')}")
        require(not client.payloads("bad"), f"told was {client.payloads('bad')}")
        await _more(client)
        _require_no_hole(client.numbers("live"))


async def _completion(stage: _Stage) -> None:
    request, text = uuid.uuid4().hex, "some words that are said once more"
    async with stage.live() as client:
        client.subscribe("words", _STREAM, {"r": request})
        messages = [{"role": "user", "content": text}]
        given = {"model": "echo", "messages": messages, "stream": True, "requestId": request}
        await stage.world.direct.execute(_COMPLETION, {"i": given}, type=dict)
        await until(lambda: client.end("words"), "the stream does not end")
        require(client.end("words") == "complete", f"it ends with {client.end('words')}")
        events: list[dict[str, Any]] = [each["data"]["llmStream"] for each in client.payloads("words")]
        require("".join(each["delta"] or "" for each in events) == text, f"told was {events}")
        await _more(client)


async def _unsubscribe(stage: _Stage) -> None:
    async with stage.live() as client:
        client.subscribe("second", UPDATES, stage.world.variables)
        await _more(client, "second")
        client.unsubscribe("second")
        await until(lambda: client.end("second") == "complete", "it does not end")
        await asyncio.sleep(_QUIET_SECONDS)
        count = len(client.payloads("second"))
        await _more(client)
        require(len(client.payloads("second")) == count, "events came after it was unsubscribed")
        _require_no_hole(client.numbers("live"))


async def _cuts(stage: _Stage) -> None:
    async with stage.live() as client:
        for _ in range(_CUTS):
            stage.world.proxy.cut()
            await _more(client)
        _require_ascending(client)
        require(client.opened == _CUTS + 1, f"it was connected {client.opened} times")


async def _idle(stage: _Stage) -> None:
    world = stage.world
    async with stage.client() as client:
        async with world.publisher.publishing():
            client.subscribe("live", UPDATES, world.variables)
            await _more(client)
        await asyncio.sleep(_IDLE_SECONDS)
        n = await world.publisher.publish()
        await until(lambda: client.numbers("live")[-1] == n, "no event came after the silence", seconds=2.0)
        _require_no_hole(client.numbers("live"))
        require(client.opened == 1, "it has connected anew meanwhile")


async def _kill(stage: _Stage) -> None:
    async with stage.live() as client:
        await stage.server.kill()
        await stage.server.start()
        await _more(client)
        _require_ascending(client)


def _require_ascending(client: NodeClient) -> None:
    numbers = client.numbers("live")
    require(all(a < b for a, b in itertools.pairwise(numbers)), f"not in order: {numbers}")
    require(client.end("live") is None, f"it has ended: {client.end('live')}")


_SCENARIOS: dict[str, Callable[[_Stage], Awaitable[None]]] = {
    "events in order, by variables": _events,
    "an unknown field": _unknown_field,
    "a syntax error beside a live neighbour": _syntax_error,
    "a missing variable": _missing_variable,
    "completion": _completion,
    "unsubscribe": _unsubscribe,
    "five cuts": _cuts,
    "idle": _idle,
    "kill and restart": _kill,
}


async def run_legacy_client(table: Table) -> None:
    """Run all scenarios."""
    with tempfile.TemporaryDirectory(prefix="circuit-breaker-interop-") as directory:
        server = ServerProcess(Path(directory), settings=_SETTINGS, measures_holds=False)
        await server.start()
        try:
            async with world_of(server.port) as world:
                for scenario, cell in _SCENARIOS.items():
                    await table.run(_CLIENT, "ours", scenario, cell(_Stage(server, world)))
        finally:
            await server.kill()
