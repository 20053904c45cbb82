"""What every store of secrets does, whatever it keeps them in."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Protocol

import pytest

from circuit_breaker_server.engine.secrets import Secrets

URL = "https://api.example.com/v1"


class Store(Secrets, Protocol):
    """The port of the engine, and the question that is asked of the store itself."""

    async def find(self, id: str) -> str | None: ...  # noqa: A002 (the port's own)


Opened = Callable[[], AbstractAsyncContextManager[Store]]
"""Opens the store of one test, as often as it is called."""


class SecretsSuite:
    """The tests; a subclass has a fixture ``opened`` with an :data:`Opened`."""

    async def test_what_is_put_is_read_and_listed(self, opened: Opened) -> None:
        async with opened() as store:
            assert (store.get("a"), await store.find("a"), store.ids()) == (None, None, [])
            await store.put("a", "one")
            await store.put("b", "two\n☃")
            assert (store.get("a"), await store.find("b")) == ("one", "two\n☃")
            assert sorted(store.ids()) == ["a", "b"]
            assert "one" not in repr(store)

    @pytest.mark.parametrize("name", ["mcp-client-1", "a.b", "*.>", "a b/c~=2E%", "ключ", "$KV.x", "A" * 200])
    async def test_any_text_is_an_id(self, opened: Opened, name: str) -> None:
        async with opened() as store:
            await store.put(name, "one")
        async with opened() as store:
            assert store.get(name) == "one"
            assert store.ids() == [name]

    async def test_a_value_may_be_empty_and_long(self, opened: Opened) -> None:
        async with opened() as store:
            await store.put("empty", "")
            await store.put("long", "x" * 100_000)
        async with opened() as store:
            assert store.get("empty") == ""
            assert store.get("long") == "x" * 100_000

    async def test_the_last_value_stays(self, opened: Opened) -> None:
        async with opened() as store:
            for value in ("one", "two", "three"):
                await store.put("a", value)
            assert store.get("a") == "three"
        async with opened() as store:
            assert store.get("a") == "three"

    async def test_what_is_removed_is_gone_and_may_come_again(self, opened: Opened) -> None:
        async with opened() as store:
            await store.remove("a")
            await store.put("a", "one")
            await store.remove("a")
            await store.remove("a")
            assert (store.get("a"), await store.find("a"), store.ids()) == (None, None, [])
        async with opened() as store:
            assert store.ids() == []
            await store.put("a", "two")
        async with opened() as store:
            assert store.get("a") == "two"

    async def test_keys_of_providers_are_of_the_environment(
        self, opened: Opened, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("CIRCUIT_BREAKER_API_KEY_OPEN_AI", "k")
        async with opened() as store:
            assert store.api_key("open-ai", base_url=URL, tenant=None) == "k"
            assert store.api_key("open-ai", base_url=URL, tenant="acme") is None
            assert store.ids() == []
