"""The file of cursors, and what is refused about keys."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from circuit_breaker_sdk import Client, CursorStore, FileCursorStore, SubscriptionState, UsageError
from circuit_breaker_sdk.recovery.cursor_store import CursorKeeper


async def test_what_was_saved_is_there_for_the_next_program(tmp_path: Path) -> None:
    path = tmp_path / "cursors.json"
    first = FileCursorStore(path)
    assert await first.load("a") is None
    await first.save("a", "c1")
    await first.save("b", "c2")
    await first.save("a", "c3")
    second = FileCursorStore(path)
    assert [await second.load(key) for key in ("a", "b", "c")] == ["c3", "c2", None]
    assert [each.name for each in tmp_path.iterdir()] == ["cursors.json"]


def count_writes(store: FileCursorStore, monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    written: list[bytes] = []
    write = store._write

    def counted(data: bytes) -> None:
        written.append(data)
        write(data)

    monkeypatch.setattr(store, "_write", counted)
    return written


async def test_saves_that_come_together_share_a_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "cursors.json"
    store = FileCursorStore(path)
    written = count_writes(store, monkeypatch)
    await asyncio.gather(*(store.save(str(n), f"c{n}") for n in range(1000)))
    assert len(written) == 1
    again = FileCursorStore(path)
    assert [await again.load(str(n)) for n in range(1000)] == [f"c{n}" for n in range(1000)]


async def test_a_save_that_comes_while_the_file_is_written_is_in_it_when_it_returns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "cursors.json"
    store = FileCursorStore(path)
    is_writing, go_on = threading.Event(), threading.Event()
    write = store._write

    def held(data: bytes) -> None:
        is_writing.set()
        assert go_on.wait(20)
        write(data)

    monkeypatch.setattr(store, "_write", held)
    first = asyncio.create_task(store.save("a", "c1"))
    await asyncio.to_thread(is_writing.wait)
    second, cancelled = (asyncio.create_task(store.save(key, "c2")) for key in ("b", "c"))
    await asyncio.sleep(0)
    first.cancel()
    cancelled.cancel()
    go_on.set()
    await second
    assert await FileCursorStore(path).load("a") == "c1"
    assert await FileCursorStore(path).load("b") == "c2"
    await store.save("c", "c3")
    assert await FileCursorStore(path).load("c") == "c3"


async def test_a_write_that_fails_is_told_to_all_who_wait_for_it(tmp_path: Path) -> None:
    store = FileCursorStore(tmp_path / "missing" / "cursors.json")
    outcomes = await asyncio.gather(*(store.save(key, "c1") for key in "ab"), return_exceptions=True)
    assert [type(each) for each in outcomes] == [FileNotFoundError] * 2
    (tmp_path / "missing").mkdir()
    await store.save("c", "c1")
    again = FileCursorStore(tmp_path / "missing" / "cursors.json")
    assert [await again.load(key) for key in "abc"] == ["c1"] * 3


@pytest.mark.parametrize("content", [b"", b"[]", b'{"a": 1}', b"\xff"])
async def test_a_file_of_something_else_is_named_and_left_alone(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "cursors.json"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=r"cursors\.json cannot be read as a file of cursors"):
        await FileCursorStore(path).load("a")
    assert path.read_bytes() == content


async def test_a_key_without_a_store_is_a_usage_error() -> None:
    async with Client("ws://127.0.0.1:1/graphql") as client:
        with pytest.raises(UsageError, match="cursor_store"):
            await client.subscriptions.resource_updates().cursor_key("k").subscribe()


def keeping(store: CursorStore, count: int) -> CursorKeeper:
    """Keep the cursors of so many subscriptions, each of which has handled an event."""
    keeper = CursorKeeper(store)
    for number in range(count):
        delivery: Any = SimpleNamespace(
            consumer=SimpleNamespace(handled="c1", save_cursor=None), state=SubscriptionState.LIVE
        )
        keeper.keep(str(number), delivery)
    return keeper


async def test_very_many_cursors_are_few_writes_of_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = FileCursorStore(tmp_path / "cursors.json")
    written = count_writes(store, monkeypatch)
    await keeping(store, 1000).aclose()
    assert len(written) <= 11
    again = FileCursorStore(tmp_path / "cursors.json")
    assert [await again.load(str(n)) for n in range(1000)] == ["c1"] * 1000


async def test_saving_very_many_cursors_lets_others_have_their_turn() -> None:
    class Store:
        saved = 0

        async def load(self, key: str) -> str | None:
            return None

        async def save(self, key: str, cursor: str) -> None:
            self.saved += 1

    store = Store()
    keeper = keeping(store, 1000)
    closing = asyncio.ensure_future(keeper.aclose())
    at_once, before = 0, 0
    while not closing.done():
        await asyncio.sleep(0)
        at_once, before = max(at_once, store.saved - before), store.saved
    assert store.saved == 1000
    assert at_once <= 200
