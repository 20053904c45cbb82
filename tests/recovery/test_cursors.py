"""The file of cursors, and what is refused about keys."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from circuit_breaker_sdk import Client, FileCursorStore, SubscriptionState, UsageError
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


async def test_saving_very_many_cursors_lets_others_have_their_turn() -> None:
    class Store:
        saved = 0

        async def load(self, key: str) -> str | None:
            return None

        async def save(self, key: str, cursor: str) -> None:
            self.saved += 1

    store = Store()
    keeper = CursorKeeper(store)
    for number in range(1000):
        delivery: Any = SimpleNamespace(
            consumer=SimpleNamespace(handled="c1", save_cursor=None), state=SubscriptionState.LIVE
        )
        keeper.keep(str(number), delivery)
    closing = asyncio.ensure_future(keeper.aclose())
    at_once, before = 0, 0
    while not closing.done():
        await asyncio.sleep(0)
        at_once, before = max(at_once, store.saved - before), store.saved
    assert store.saved == 1000
    assert at_once <= 200
