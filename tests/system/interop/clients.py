"""Clients by others with our server: over WebSockets and over server-sent events."""

from __future__ import annotations

import asyncio
import itertools
import tempfile
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal, final

from tests.system.chaos.world import ServerProcess
from tests.system.interop.cells import NotPossible, Table, require, until
from tests.system.interop.our_server import UPDATES, World, world_of
from tests.system.interop.programs import ProgramClient, Runtime
from tests.system.interop.programs import client as run_client

__all__ = ["run_clients"]

_SETTINGS: Final[dict[str, float | int | str]] = {
    "ping_seconds": 0.2,
    # Node keeps spare sockets for 4 s, also one that it opens when a request is aborted.
    "keep_alive_seconds": 1,
    "head_seconds": 0.5,
}
_CUTS: Final = 5
_QUIET_SECONDS: Final = 0.3
_IDLE_SECONDS: Final = 1.5
# The operation's name keeps clients from sharing the stream of an equal operation.
_SECOND_UPDATES: Final = UPDATES.replace("subscription(", "subscription Second(")
_STREAM: Final = "subscription($r: String!) { llmStream(requestId: $r) { eventType delta isComplete } }"
_COMPLETION: Final = "mutation($i: LlmChatCompletionInput!) { llmChatCompletion(input: $i) { id } }"
_WORKFLOW: Final = "query($id: String!) { workflow(id: $id) { id name } }"
_CREATE: Final = "mutation($i: ResourceCreateInput!) { createResource(input: $i) { id data } }"
_QUERY, _MUTATION = "a query over HTTP", "a mutation over HTTP"


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class _Peer:
    """A client by others, and what differs between it and the rest.

    :ivar command: its program, and what it is given before the URL.
    :ivar runtime: what the program runs on.
    :ivar query_method: the method of its queries by default; ``None``: it executes no queries or mutations.
    :ivar refusal: how it shows a refused document: as an error, as a result, or as the status of the answer.
    :ivar tells_openings: it tells each connection that it opens.
    :ivar keeps_connection: its connection stays open without a subscription.
    :ivar impossible: why a scenario cannot be run, by the scenario's name.
    """

    name: str
    command: tuple[str, ...]
    runtime: Runtime = Runtime.NODE
    query_method: Literal["GET", "POST"] | None = None
    refusal: Literal["error", "result", "status"] = "error"
    tells_openings: bool = True
    keeps_connection: bool = False
    impossible: Mapping[str, str] = field(default_factory=dict)

    def scenarios(self) -> list[str]:
        """Return the scenarios that it has a part in."""
        return [each for each in _SCENARIOS if self.query_method or each not in {_QUERY, _MUTATION}]


_PARSES: Final = {"a syntax error beside a live neighbour": "it parses the document itself and sends nothing"}
_PEERS: Final = (
    _Peer(
        name="graphql-sse, distinct connections",
        command=("graphql_sse_client.mjs", "distinct"),
        refusal="result",
        tells_openings=False,
    ),
    _Peer(
        name="graphql-sse, single connection",
        command=("graphql_sse_client.mjs", "single"),
        refusal="status",
        tells_openings=False,
    ),
    _Peer(name="subscriptions-transport-ws", command=("legacy_client.mjs",), keeps_connection=True),
    _Peer(name="urql", command=("urql_client.mjs",), query_method="GET", impossible=_PARSES),
    _Peer(
        name="Apollo Client 3", command=("apollo_client.mjs", "3"), query_method="POST", impossible=_PARSES
    ),
    _Peer(
        name="Apollo Client 4", command=("apollo_client.mjs", "4"), query_method="POST", impossible=_PARSES
    ),
    _Peer(
        name="gql",
        command=("gql_client", "graphql-transport-ws"),
        runtime=Runtime.PYTHON,
        query_method="POST",
        keeps_connection=True,
        impossible=_PARSES,
    ),
    _Peer(
        name="gql, legacy protocol",
        command=("gql_client", "graphql-ws"),
        runtime=Runtime.PYTHON,
        query_method="POST",
        keeps_connection=True,
        impossible=_PARSES,
    ),
    _Peer(
        name="hasura/go-graphql-client",
        command=("client", "graphql-ws"),
        runtime=Runtime.GO,
        query_method="POST",
        keeps_connection=True,
    ),
    _Peer(
        name="hasura/go-graphql-client, legacy protocol",
        command=("client", "subscriptions-transport-ws"),
        runtime=Runtime.GO,
        query_method="POST",
        keeps_connection=True,
    ),
    _Peer(name="graphql-ws-client", command=("client",), runtime=Runtime.RUST, keeps_connection=True),
)


@final
class _Stage:
    """Our server in a process of its own, and a client by others."""

    def __init__(self, server: ServerProcess, world: World, peer: _Peer) -> None:
        self.server = server
        self.world = world
        self.peer = peer

    def client(self, *arguments: str) -> AbstractAsyncContextManager[ProgramClient]:
        return run_client(self.peer.runtime, *self.peer.command, f"{self.world.url}/graphql", *arguments)

    @asynccontextmanager
    async def live(self) -> AsyncIterator[ProgramClient]:
        """Run a client with a subscription, *live*, that has had events and gets more all the time."""
        async with self.client() as client, self.world.publisher.publishing():
            client.subscribe("live", UPDATES, self.world.variables)
            await _more(client)
            yield client

    def require_openings(self, client: ProgramClient, count: int) -> None:
        require(
            client.opened == count or not self.peer.tells_openings, f"it was connected {client.opened} times"
        )


async def _more(client: ProgramClient, name: str = "live") -> None:
    count = len(client.payloads(name))
    await until(lambda: len(client.payloads(name)) >= count + 3, f"{name!r} gets no events")


def _require_no_hole(numbers: list[int]) -> None:
    require(all(b == a + 1 for a, b in itertools.pairwise(numbers)), f"not in order: {numbers}")


def _require_ascending(client: ProgramClient) -> None:
    numbers = client.numbers("live")
    require(all(a < b for a, b in itertools.pairwise(numbers)), f"not in order: {numbers}")
    require(client.end("live") is None, f"it has ended: {client.end('live')}")


async def _executed(client: ProgramClient, name: str, document: str, variables: dict[str, object]) -> Any:
    client.execute(name, document, variables)
    await until(lambda: client.end(name), "no answer comes")
    require(client.end(name) == "complete", f"it ends with {client.end(name)}")
    (answer,) = client.payloads(name)
    require(not answer.get("errors"), f"the answer is {answer}")
    return answer["data"]


async def _query(stage: _Stage) -> None:
    workflow = stage.world.publisher.workflow
    async with stage.client() as client:
        found = (await _executed(client, "query", _WORKFLOW, {"id": workflow}))["workflow"]
        require((found["id"], found["name"]) == (workflow, "Document review"), f"found was {found}")
        client.execute("bad", "{ nothing }")
        await until(lambda: client.end("bad"), "the bad query does not end")
        require("nothing" in str(client.end("bad")), f"the bad query ends with {client.end('bad')}")
        require(client.methods == [stage.peer.query_method] * 2, f"its requests: {client.methods}")


async def _mutation(stage: _Stage) -> None:
    async with stage.client() as client:
        client.subscribe("live", UPDATES, stage.world.variables)
        await until(lambda: client.opened, "it does not connect")
        for n in itertools.count():
            given: dict[str, object] = {"i": {"workflowId": stage.world.publisher.workflow, "data": {"n": n}}}
            made = (await _executed(client, f"mutation {n}", _CREATE, given))["createResource"]
            require(made["id"] and made["data"]["n"] == n, f"made was {made}")
            if client.payloads("live"):
                break
        await until(lambda: client.numbers("live")[-1] == n, "its event does not come")
        require(set(client.methods) == {"POST"}, f"its requests: {client.methods}")


async def _events(stage: _Stage) -> None:
    world = stage.world
    async with stage.live() as client, world.other.publishing():
        client.subscribe("other", UPDATES, {"w": world.other.workflow})
        await until(lambda: len(client.payloads("other")) >= 20, "the other workflow has no events")
        await until(lambda: len(client.payloads("live")) >= 50, "there are no 50 events")
        _require_no_hole(client.numbers("live"))
        _require_no_hole(client.numbers("other"))
        stage.require_openings(client, 1)


async def _unknown_field(stage: _Stage) -> None:
    await _refused(stage, "subscription { resourceUpdates { nothing } }", "nothing")


async def _missing_variable(stage: _Stage) -> None:
    await _refused(stage, UPDATES, "$w")


async def _syntax_error(stage: _Stage) -> None:
    await _refused(stage, "subscription {", "Syntax Error")


async def _refused(stage: _Stage, query: str, text: str) -> None:
    """Subscribe to what is refused, beside a subscription that is live."""
    if stage.peer.refusal == "status":
        await _refused_with_400(stage, query)
        return
    async with stage.live() as client:
        client.subscribe("bad", query)
        await until(lambda: client.end("bad"), "it does not end")
        if stage.peer.refusal == "result":
            require(client.end("bad") == "complete", f"it ends with {client.end('bad')}")
            (told,) = client.payloads("bad")
            require(text in str(told["errors"]), f"told was {told}")
            require("data" not in told, f"told was {told}")
        else:
            require(text in str(client.end("bad")), f"it ends with {client.end('bad')}")
            require(not client.payloads("bad"), f"told was {client.payloads('bad')}")
        await _more(client)
        _require_no_hole(client.numbers("live"))


async def _refused_with_400(stage: _Stage, query: str) -> None:
    """Subscribe to what is refused on a shared stream: by the protocol with 400, as by a server of its own.

    The client does not look into the answer and tries again, on a new stream; it counts its retries anew
    with each event of a neighbour, so that beside one it never gives up.
    """
    async with stage.client("2") as client:
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
        client.subscribe("second", _SECOND_UPDATES, stage.world.variables)
        await _more(client, "second")
        client.unsubscribe("second")
        await until(lambda: client.end("second") == "complete", "it does not end")
        await asyncio.sleep(_QUIET_SECONDS)
        count = len(client.payloads("second"))
        await _more(client)
        require(len(client.payloads("second")) == count, "events came after it was unsubscribed")
        _require_no_hole(client.numbers("live"))
        client.unsubscribe("live")
        if not stage.peer.keeps_connection:
            await until(lambda: not stage.world.proxy.connections, "its connections stay open")


async def _cuts(stage: _Stage) -> None:
    async with stage.live() as client:
        for _ in range(_CUTS):
            stage.world.proxy.cut()
            await _more(client)
        _require_ascending(client)
        stage.require_openings(client, _CUTS + 1)


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
        stage.require_openings(client, 1)


async def _kill(stage: _Stage) -> None:
    async with stage.live() as client:
        await stage.server.kill()
        await stage.server.start()
        await _more(client)
        _require_ascending(client)


_SCENARIOS: dict[str, Callable[[_Stage], Awaitable[None]]] = {
    _QUERY: _query,
    _MUTATION: _mutation,
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


async def _run(scenario: str, stage: _Stage) -> None:
    if reason := stage.peer.impossible.get(scenario):
        raise NotPossible(reason)
    await _SCENARIOS[scenario](stage)


async def run_clients(table: Table, runtimes: Collection[Runtime]) -> None:
    """Run all scenarios with each client on one of the runtimes."""
    for peer in _PEERS:
        if peer.runtime not in runtimes:
            continue
        with tempfile.TemporaryDirectory(prefix="circuit-breaker-interop-") as directory:
            server = ServerProcess(Path(directory), settings=_SETTINGS, measures_holds=False)
            await server.start()
            try:
                async with world_of(server.port) as world:
                    for scenario in peer.scenarios():
                        await table.run(
                            peer.name, "ours", scenario, _run(scenario, _Stage(server, world, peer))
                        )
            finally:
                await server.kill()
