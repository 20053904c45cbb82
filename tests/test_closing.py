"""Closing a client in the middle of anything: whole, bounded, and nothing of it is left."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from circuit_breaker_sdk import Client, FileCursorStore, Subscription, Timeouts, UsageError
from circuit_breaker_sdk.recovery.cursor_store import CursorKeeper
from tests.connections.raw_server import acknowledge, read_message, send_message
from tests.delivery.deliveries import Rig
from tests.transports.peers import Peer, serve
from tests.waiting import until

TICKS = "subscription { tick }"
RESUME: dict[str, object] = {"resume": {"version": 1, "epoch": "e"}}


@asynccontextmanager
async def client_of(
    go_live: Callable[[], bool] = lambda: True, close_seconds: float = 0.2, **settings: object
) -> AsyncIterator[tuple[Client, list[dict[str, object]]]]:
    """A client of a server that says of each subscription that it is live; and what that server has read."""
    read: list[dict[str, object]] = []

    async def script(peer: Peer) -> None:
        with suppress(AssertionError, asyncio.IncompleteReadError, ConnectionError):
            await acknowledge(peer, RESUME)
            while True:
                read.append(message := await read_message(peer))
                if message["type"] == "subscribe" and go_live():
                    resume = {"id": message["id"], "cursor": "c0"}
                    send_message(peer, type="ping", payload={"resume": resume})
        peer.vanish()

    async with serve(script) as port:
        url = f"ws://127.0.0.1:{port}/graphql"
        client = Client(url, timeouts=Timeouts(close_seconds=close_seconds), **settings)  # type: ignore[arg-type]  # by their names
        try:
            yield client, read
        finally:
            await client.aclose()


@pytest.mark.parametrize("key", [None, "k"])
async def test_a_subscribe_that_the_close_overtakes_is_refused(tmp_path: Path, key: str | None) -> None:
    async with client_of(lambda: False, cursor_store=tmp_path / "cursors") as (client, read):
        starting = asyncio.ensure_future(client.subscribe(TICKS, type=int, cursor_key=key))
        await until(lambda: read)
        await client.aclose()
        with pytest.raises(UsageError, match="closed"):
            await starting
        with pytest.raises(UsageError, match="closed"):
            await client.subscribe(TICKS, type=int, cursor_key=key)


async def test_of_two_that_begin_with_one_cursor_key_the_second_is_refused(tmp_path: Path) -> None:
    async with client_of(cursor_store=tmp_path / "cursors") as (client, _):
        begun = await asyncio.gather(
            *(client.subscribe(TICKS, type=int, cursor_key="k") for _ in range(2)), return_exceptions=True
        )
        assert isinstance(begun[0], Subscription)
        assert isinstance(begun[1], UsageError)
        await begun[0].unsubscribe()
        await client.subscribe(TICKS, type=int, cursor_key="k")


async def test_a_key_is_free_again_where_its_subscription_did_not_begin(tmp_path: Path) -> None:
    async with client_of(lambda: False, cursor_store=tmp_path / "cursors") as (client, read):
        starting = asyncio.ensure_future(client.subscribe(TICKS, type=int, cursor_key="k"))
        await until(lambda: read)
        starting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await starting
        again = asyncio.ensure_future(client.subscribe(TICKS, type=int, cursor_key="k"))
        await until(lambda: again.done() or sum(each["type"] == "subscribe" for each in read) == 2)
        assert not again.done(), "the key is not in use"
        again.cancel()
        with pytest.raises(asyncio.CancelledError):
            await again


async def test_a_handler_that_never_ends_keeps_nothing_open() -> None:
    refused = asyncio.Event()
    stubborn = asyncio.Event()

    async def handler(_tick: int) -> None:
        while not stubborn.is_set():
            try:
                await stubborn.wait()
            except asyncio.CancelledError:
                refused.set()

    async with client_of() as (client, _):
        ticks = await client.subscribe(TICKS, type=int)
        ticks.on_data(handler)
        ticks._delivery.deliver_checked(
            b'{"data":{"tick":1},"extensions":{"resume":{"cursor":"c1","prev":"c0"}}}'
        )
        await asyncio.sleep(0)
        await client.aclose()
        assert refused.is_set()
        assert client.state == "closed"
        stubborn.set()


async def test_a_handler_may_close_the_client_itself() -> None:
    closed = asyncio.Event()
    async with client_of() as (client, _):

        async def handler(_tick: int) -> None:
            await client.aclose()
            closed.set()

        ticks = await client.subscribe(TICKS, type=int)
        ticks.on_data(handler)
        ticks._delivery.deliver_checked(
            b'{"data":{"tick":1},"extensions":{"resume":{"cursor":"c1","prev":"c0"}}}'
        )
        await closed.wait()
        assert client.state == "closed"


async def test_what_one_part_raises_keeps_no_other_open(monkeypatch: pytest.MonkeyPatch) -> None:
    async with client_of() as (client, _):
        await client.subscribe(TICKS, type=int)
        connection = await client._parts.first.connection()

        async def broken(*_: object, **__: object) -> None:
            raise RuntimeError("broken")

        with monkeypatch.context() as patch:
            patch.setattr(type(client._parts.manager), "aclose", broken)
            with pytest.raises(RuntimeError, match="broken"):
                await client.aclose()
        assert not connection.is_usable
        assert client.state == "closed"


async def test_no_token_source_and_no_timer_outlives_the_client() -> None:
    async def never() -> str:
        await asyncio.Event().wait()
        raise AssertionError

    async with client_of(token=never) as (client, _):
        starting = asyncio.ensure_future(client.subscribe(TICKS, type=int))
        await until(lambda: client._parts.tokens._fetching is not None)
        await client.aclose()
        with pytest.raises(UsageError):
            await starting
        assert asyncio.all_tasks() - {asyncio.current_task()} == {
            task for task in asyncio.all_tasks() if "circuit-breaker" not in task.get_name()
        } - {asyncio.current_task()}


async def test_a_hand_over_behind_the_close_starts_no_timer() -> None:
    async with client_of() as (client, _):
        ticks = await client.subscribe(TICKS, type=int)
        connection = await client._parts.first.connection()
        recovery = client._parts.manager._only._recovery
        recovery.expect_live(connection, [ticks._delivery])
        assert recovery._timers
        await client.aclose()
        recovery.expect_live(connection, [ticks._delivery])
        assert not recovery._timers


class Gate:
    """Holds a thread of the file store until the test lets it go."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.reached = threading.Event()
        self.open = threading.Event()
        self.writers = self.most_writers = 0
        write = FileCursorStore._write

        def gated(store: FileCursorStore, data: bytes) -> None:
            self.writers += 1
            self.most_writers = max(self.most_writers, self.writers)
            self.reached.set()
            self.open.wait()
            write(store, data)
            self.writers -= 1

        monkeypatch.setattr(FileCursorStore, "_write", gated)


async def test_a_close_during_a_slow_save_writes_the_last_cursor_behind_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("circuit_breaker_sdk.recovery.cursor_store._SAVE_SECONDS", 0.001)
    gate = Gate(monkeypatch)
    store, rig = FileCursorStore(tmp_path / "cursors"), Rig(resume=True)
    keeper = CursorKeeper(store)
    keeper.keep("k", rig.delivery)
    rig.delivery.consumer.handled = "c1"
    await until(gate.reached.is_set)
    rig.delivery.consumer.handled = "c2"
    closing = asyncio.create_task(keeper.aclose())
    await asyncio.sleep(0)
    gate.open.set()
    await closing
    assert await FileCursorStore(tmp_path / "cursors").load("k") == "c2"
    assert gate.most_writers == 1
    assert "not saved" not in caplog.text


async def test_a_save_that_is_cancelled_is_still_the_only_writer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate(monkeypatch)
    store = FileCursorStore(tmp_path / "cursors")
    first = asyncio.create_task(store.save("k", "c1"))
    await until(gate.reached.is_set)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    second = asyncio.create_task(store.save("k", "c2"))
    await asyncio.sleep(0)
    gate.open.set()
    await second
    assert gate.most_writers == 1
    assert await FileCursorStore(tmp_path / "cursors").load("k") == "c2"
