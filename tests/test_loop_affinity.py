"""A client and what is made of it are used on one event loop; everywhere else they say so."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import pytest

from circuit_breaker_sdk import (
    BatchSubscriptionManager,
    BufferLimits,
    Client,
    Subscription,
    SubscriptionBuilder,
    SubscriptionConnectionPool,
    UsageError,
)
from circuit_breaker_sdk.domains import LLMStream
from circuit_breaker_server import Server, ServerSettings

ARGUMENTS: dict[str, tuple[object, ...]] = {
    "on_connection_state": (print,),
    "on_data": (print,),
    "on_error": (print,),
    "on_complete": (print,),
    "filter": (bool,),
    "windows": (60,),
    "buffer": (BufferLimits(),),
    "after": ("c-1",),
    "cursor_key": ("key",),
    "since": (datetime.now(UTC),),
    "last": (5,),
    "on_gap": (print,),
    "__aexit__": (None, None, None),
}
READ_ONLY = {"stats", "builder", "serve", "batches", "windows"}
"""They read counters, or make an object whose own methods check; `serve` is the client's own call."""

SPECIAL = {"__aiter__", "__anext__", "__aenter__", "__aexit__", "__await__"}


class Handler:
    def on_data(self, event: object) -> None: ...

    def on_error(self, error: object) -> None: ...

    def on_complete(self) -> None: ...


def entrances(thing: object) -> list[str]:
    """Return every public method of an object, also the special ones that a consumer calls."""
    return [
        name
        for name, _ in inspect.getmembers(type(thing), inspect.isfunction)
        if (not name.startswith("_") or name in SPECIAL) and name not in READ_ONLY
    ]


async def call(thing: object, name: str) -> None:
    parameters = inspect.signature(getattr(thing, name)).parameters.values()
    needed = [p for p in parameters if p.default is p.empty and p.kind is p.POSITIONAL_OR_KEYWORD]
    given = ARGUMENTS.get(name, ("x",) * len(needed))
    if name == "handle":
        given = (Handler(),)
    if name == "add_subscription":
        given = (thing,)
    result = _awaited(thing) if name == "__await__" else getattr(thing, name)(*given)
    if inspect.isawaitable(result) and not isinstance(result, SubscriptionBuilder):
        await result


async def _awaited(thing: object) -> None:
    await thing  # type: ignore[misc]  # a builder


def elsewhere(run: Callable[[], None]) -> None:
    # The loop of this thread stands still meanwhile: nothing is awaited there that it would have to do.
    with ThreadPoolExecutor(1) as thread:
        thread.submit(run).result()


async def test_every_public_method_refuses_another_loop_and_another_thread(tmp_path: Path) -> None:
    pool = SubscriptionConnectionPool(size=2)
    async with (
        Server(ServerSettings(port=0, data_dir=tmp_path)) as server,
        Client(server.url, pool=pool) as client,
    ):
        builder = client.workflows.subscribe_resource_updates()
        live = await client.subscribe("subscription { resourceUpdates { id } }")
        batch = BatchSubscriptionManager().add_subscription(builder)
        stream = client.llm.stream(model="echo", messages=[], request_id="r-1")
        async with batch:
            stream._affinity.enter()
            accepted: list[str] = []

            def on_a_second_loop() -> None:
                for thing in (client, builder, live, batch, stream):
                    for name in entrances(thing):
                        try:
                            asyncio.run(call(thing, name))
                        except UsageError as error:
                            if "make one for each loop" in str(error):
                                continue
                        accepted.append(f"{type(thing).__name__}.{name}")
                with pytest.raises(UsageError, match="make one for each loop"):
                    asyncio.run(client.workflows.workflows())

            def without_a_loop() -> None:
                for act in (
                    lambda: live.on_data(print),
                    lambda: live.filter(bool),
                    lambda: client.subscribe("subscription { tick }"),
                    client.workflows.subscribe_resource_updates,
                    builder.critical,
                    pool.health,
                    lambda: batch.add_subscription(live),
                ):
                    with pytest.raises(UsageError, match="call_soon_threadsafe"):
                        act()

            elsewhere(on_a_second_loop)
            assert accepted == []
            elsewhere(without_a_loop)
        await live.unsubscribe()
        assert {type(each) for each in (builder, live, batch, stream)} >= {Subscription, LLMStream}
    assert client.state == "closed"
