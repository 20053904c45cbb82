"""The health of the server, as load balancers, supervisors and people ask for it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pytest

from circuit_breaker_sdk._version import __version__
from circuit_breaker_server import Server, ServerSettings, TokenSettings
from circuit_breaker_server.admission.draining import Draining
from circuit_breaker_server.endpoints.health import Health
from tests.server.operations import CREATE_WORKFLOW, UPDATES, WORKFLOW
from tests.server.site import site
from tests.server.tokens import SECRET, token

JSON = {"Accept": "application/json"}
MIB = 1024 * 1024


@dataclass
class Log:
    """A log whose health a test decides."""

    append_failed: bool = False
    last_offset: int = 7
    is_writable: bool = False
    outage: str | None = None
    tries: int = 0

    async def try_write(self) -> bool:
        self.tries += 1
        if self.is_writable:
            self.append_failed = False
        return self.is_writable


@dataclass
class Follower:
    last_offset: int = 7


@dataclass
class Disk:
    free: int = 500 * MIB
    looks: int = 0
    broken: bool = False

    def free_bytes(self, directory: Path) -> int:
        assert directory == Path("data")
        self.looks += 1
        if self.broken:
            raise OSError(5, "Input/output error")
        return self.free


@dataclass
class Clock:
    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


class World:
    def __init__(self) -> None:
        self.log, self.follower, self.disk, self.clock = Log(), Follower(), Disk(), Clock()
        self.draining = Draining()
        self.health = Health(
            self.log,
            self.follower,
            self.draining,
            data_dir=Path("data"),
            min_free_disk_bytes=100 * MIB,
            free_bytes=self.disk.free_bytes,
            clock=self.clock,
        )


# --- the reasons -----------------------------------------------------------------------------------


async def test_a_server_is_ready_when_nothing_speaks_against_it() -> None:
    world = World()
    assert await world.health.reasons() == []
    world.clock.now += 12.5
    assert world.health.uptime_seconds == 12.5


async def test_a_disk_without_room_is_a_reason() -> None:
    world = World()
    world.disk.free = 99 * MIB
    assert await world.health.reasons() == [
        "the disk of the event log has 99 MiB left, less than 100 MiB (min_free_disk_bytes)"
    ]
    world.disk.free = 100 * MIB
    world.clock.now += 1
    assert await world.health.reasons() == []
    world.disk.broken = True
    world.clock.now += 1
    assert await world.health.reasons() == ["the disk of the event log cannot be looked at"]


async def test_the_disk_is_looked_at_once_a_second_however_many_ask() -> None:
    world = World()
    await asyncio.gather(*(world.health.reasons() for _ in range(100)))
    assert world.disk.looks == 1
    world.clock.now += 1
    await world.health.reasons()
    assert world.disk.looks == 2


async def test_a_log_that_cannot_be_written_is_tried_again_without_a_mutation() -> None:
    world = World()
    world.log.append_failed = True
    assert await world.health.reasons() == ["the event log cannot be written: the last append failed"]
    world.log.is_writable = True
    assert len(await world.health.reasons()) == 1
    world.clock.now += 1
    assert await world.health.reasons() == []
    assert world.log.tries == 2


async def test_a_tail_that_is_behind_and_draining_are_reasons() -> None:
    world = World()
    world.follower.last_offset = 4
    world.draining.begin()
    assert await world.health.reasons() == [
        "the server is draining",
        "subscribers are 3 records behind the event log",
    ]


# --- over HTTP -------------------------------------------------------------------------------------


async def test_a_server_that_serves_is_live_and_ready(tmp_path: Path) -> None:
    async with site(tmp_path) as running:
        for path in ("/health/live", "/health/ready"):
            async with running.http.get(running.root + path) as answer:
                assert (answer.status, answer.headers["Cache-Control"]) == (200, "no-store")
        async with running.http.get(running.root + "/health/ready") as answer:
            assert await answer.json() == {"status": "ready", "reasons": []}
        async with running.http.head(running.root + "/health/live") as answer:
            assert answer.status == 200
        async with running.http.post(running.root + "/health/live") as answer:
            assert answer.status == 405


async def test_a_server_with_a_full_disk_is_live_and_not_ready_and_goes_on(tmp_path: Path) -> None:
    async with site(tmp_path, min_free_disk_bytes=1 << 62) as running:
        async with running.http.get(running.root + "/health/live") as answer:
            assert answer.status == 200
        async with running.http.get(running.root + "/health/ready") as answer:
            assert answer.status == 503
            told = await answer.json()
        assert told["status"] == "not ready"
        assert "min_free_disk_bytes" in told["reasons"][0]
        await running.made(CREATE_WORKFLOW, WORKFLOW)
        async with running.http.get(running.root + "/health") as answer:
            assert (answer.status, await answer.text()) == (200, "ok")


async def test_an_open_server_tells_what_it_has(tmp_path: Path) -> None:
    async with site(tmp_path) as running:
        await running.made(CREATE_WORKFLOW, WORKFLOW)
        client = await running.open()
        await client.init()
        client.subscribe("1", UPDATES)
        await client.live("1")
        async with running.http.get(running.root + "/health", headers=JSON) as answer:
            assert answer.status == 200
            told = await answer.json()
        assert told.pop("uptimeSeconds") >= 0
        assert told == {
            "status": "ready",
            "reasons": [],
            "version": __version__,
            "connections": {"websocket": 1, "event_stream": 0, "poll": 0},
            "channels": 1,
            "lastOffset": 1,
        }


@pytest.mark.parametrize("is_known", [True, False])
async def test_counts_are_for_callers_who_are_known(tmp_path: Path, is_known: bool) -> None:
    settings = ServerSettings(
        data_dir=tmp_path, port=0, token_keys=TokenSettings(key=SECRET), log_level="critical"
    )
    shown = {"Authorization": f"Bearer {token(sub='user-7')}"} if is_known else {}
    async with Server(settings) as server, aiohttp.ClientSession() as http:
        root = server.url.removesuffix("/graphql")
        async with http.get(root + "/health", headers=JSON | shown) as answer:
            assert answer.status == 200
            told = await answer.json()
        assert told["status"] == "ready"
        assert ("connections" in told, "lastOffset" in told, "channels" in told) == (is_known,) * 3
        for path in ("/health/live", "/health/ready"):
            async with http.get(root + path) as answer:
                assert answer.status == 200
