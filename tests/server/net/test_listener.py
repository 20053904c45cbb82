"""The socket that a server listens on, and one that several share."""

from __future__ import annotations

import asyncio
from contextlib import closing
from pathlib import Path

import aiohttp
import pytest

from circuit_breaker_server import Server, ServerSettings, ServerStartError
from circuit_breaker_server.net.listener import listen


async def health(url: str) -> object:
    async with aiohttp.ClientSession() as http, http.get(url + "?query={health}") as answer:
        return await answer.json()


async def test_nobody_waits_for_a_server_that_does_not_accept_yet_while_another_one_does(
    tmp_path: Path,
) -> None:
    async with Server(ServerSettings(port=0, data_dir=tmp_path / "one", reuse_port=True)) as serving:
        shared = ServerSettings(port=serving.port, data_dir=tmp_path / "two", reuse_port=True)
        with closing(listen(shared)):
            for _ in range(20):  # the system would give half of them to the other one
                asking = asyncio.create_task(health(serving.url))
                _, left = await asyncio.wait((asking,), timeout=10)
                assert not left
                assert await asking == {"data": {"health": "ok"}}
        async with Server(shared) as second:
            assert second.port == serving.port


async def test_a_port_that_is_not_shared_is_taken_at_once(tmp_path: Path) -> None:
    with closing(listen(ServerSettings(port=0, data_dir=tmp_path))) as first:
        taken = ServerSettings(port=first.getsockname()[1], data_dir=tmp_path)
        with pytest.raises(ServerStartError, match="in use"):
            listen(taken)


async def test_the_port_of_the_metrics_is_never_shared(tmp_path: Path) -> None:
    pytest.importorskip("prometheus_client", reason="the extra prometheus is not installed")
    one = ServerSettings(port=0, data_dir=tmp_path / "one", reuse_port=True, metrics_port=0)
    async with Server(one) as serving:
        port = int(str(serving.metrics_url).rpartition(":")[2].partition("/")[0])
        other = ServerSettings(port=0, data_dir=tmp_path / "two", reuse_port=True, metrics_port=port)
        with pytest.raises(ServerStartError, match="in use"):
            await Server(other).start()
