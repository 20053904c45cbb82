"""The file of cursors, and what is refused about keys."""

from __future__ import annotations

from pathlib import Path

import pytest

from circuit_breaker_sdk import Client, FileCursorStore, UsageError


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
