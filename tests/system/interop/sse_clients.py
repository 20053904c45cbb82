"""The client of graphql-sse with our server, in both of its modes."""

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

__all__ = ["run_graphql_sse_client"]

_MODES = {"distinct": "graphql-sse, distinct connections", "single": "graphql-sse, single connection"}
_SETTINGS: dict[str, float | int | str] = {
    "ping_seconds": 0.2,
    # Node keeps spare sockets for 4 s, also one that it opens when a request is aborted.
    "keep_alive_seconds": 1,
    "head_seconds": 0.5,
}
_CUTS = 5
_QUIET_SECONDS = 0.3
_IDLE_SECONDS = 1.5
_STREAM = "subscription($r: String!) { llmStream(requestId: $r) { eventType delta isComplete } }"
_COMPLETION = "mutation($i: LlmChatCompletionInput!) { llmChatCompletion(input: $i) { id } }"


@final
class _Stage:
    """Our server in a process of its own, and a client of graphql-sse in one mode."""

    def __init__(self, server: ServerProcess, world: World, mode: str) -> None:
        self.server = server
        self.world = world
        self.is_shared = mode == "single"
        self._mode = mode

    def client(self, *, retries: int = 200) -> AbstractAsyncContextManager[NodeClient]:
        url = f"{self.world.url}/graphql"
        return node_client("graphql_sse_client.mjs", url, self._mode, str(retries))

    @asynccontextmanager
    async def live(self, *, retries: int = 200) -> AsyncIterator[NodeClient]:
        """Run a client with a subscription, *live*, that has had events and gets more all the time."""
        async with self.client(retries=retries) as client, self.world.publisher.publishing():
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


async def _unknown_field(stage: _Stage) -> None:
    await _refused(stage, "subscription { resourceUpdates { nothing } }", "nothing")


async def _missing_variable(stage: _Stage) -> None:
    await _refused(stage, UPDATES, "$w")


async def _syntax_error(stage: _Stage) -> None:
    await _refused(stage, "subscription {", "Syntax Error")


async def _refused(stage: _Stage, query: str, text: str) -> None:
    """Subscribe to what is refused, beside a subscription that is live."""
    if stage.is_shared:
        await _refused_with_400(stage, query)
        return
    async with stage.live() as client:
        client.subscribe("bad", query)
        await until(lambda: client.end("bad"), "it does not end")
        require(client.end("bad") == "complete", f"it ends with {client.end('bad')}")
        (told,) = client.payloads("bad")
        require(text in str(told["errors"]), f"told was {told}")
        require("data" not in told, f"told was {told}")
        await _more(client)
        _require_no_hole(client.numbers("live"))


async def _refused_with_400(stage: _Stage, query: str) -> None:
    """Subscribe to what is refused on a shared stream: by the protocol with 400, as by a server of its own.

    The client does not look into the answer and tries again, on a new stream; it counts its retries anew
    with each event of a neighbour, so that beside one it never gives up.
    """
    async with stage.client(retries=2) as client:
        client.subscribe("bad", query)
        await until(lambda: client.end("bad"), "it does not end")
        require("400" in str(client.end("bad")), f"it ends with {client.end('bad')}")
    async with stage.live() as client:
        client.subscribe("bad", query)
        await asyncio.sleep(_QUIET_SECONDS)
        client.unsubscribe("bad")
        await _more(client)
        _require_no_hole(client.numbers("live"))
        require(not client.payloads("bad"), f"told was {client.payloads('bad')}")


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
        require([each["isComplete"] for each in events].index(True) == len(events) - 1, f"told was {events}")
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
        client.unsubscribe("live")
        await until(lambda: not stage.world.proxy.connections, "its connections stay open")


async def _cuts(stage: _Stage) -> None:
    async with stage.live() as client:
        for _ in range(_CUTS):
            stage.world.proxy.cut()
            await _more(client)
        _require_ascending(client)


async def _idle(stage: _Stage) -> None:
    world = stage.world
    async with stage.client() as client:
        async with world.publisher.publishing():
            client.subscribe("live", UPDATES, world.variables)
            await _more(client)
        await asyncio.sleep(_QUIET_SECONDS)
        made = world.proxy.connections_made
        await asyncio.sleep(_IDLE_SECONDS)
        n = await world.publisher.publish()
        await until(lambda: client.numbers("live")[-1] == n, "no event came after the silence", seconds=2.0)
        _require_no_hole(client.numbers("live"))
        require(world.proxy.connections_made == made, "it has connected anew meanwhile")


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


async def run_graphql_sse_client(table: Table) -> None:
    """Run all scenarios in both modes."""
    for mode, name in _MODES.items():
        with tempfile.TemporaryDirectory(prefix="circuit-breaker-interop-") as directory:
            server = ServerProcess(Path(directory), settings=_SETTINGS, measures_holds=False)
            await server.start()
            try:
                async with world_of(server.port) as world:
                    stage = _Stage(server, world, mode)
                    for scenario, cell in _SCENARIOS.items():
                        await table.run(name, "ours", scenario, cell(stage))
            finally:
                await server.kill()
