"""Processes are killed as the clock and the keys say, at most one of a kind at a time, and come back."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path

import aiohttp
import pytest

from circuit_breaker_sdk import Client
from circuit_breaker_sdk.cli.cluster import chaos as module
from circuit_breaker_sdk.cli.cluster import member as member_module
from circuit_breaker_sdk.cli.cluster.chaos import Chaos
from circuit_breaker_sdk.cli.cluster.member import Kind, Member, MemberFailedError, State
from circuit_breaker_sdk.cli.cluster.processes import Cluster
from circuit_breaker_sdk.cli.demo.demo_part import Stage
from circuit_breaker_sdk.cli.demo.ledger import Ledger
from circuit_breaker_sdk.cli.demo.performance import side_by_side
from tests.ports import free_ports

NEVER = 1_000.0


class Told:
    """Keeps what is told, and lets a test wait for it."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self._changed = asyncio.Event()

    def __call__(self, name: str, text: str) -> None:
        self.lines.append(f"{name}: {text}")
        self._changed.set()

    async def until(self, count: int) -> None:
        async with asyncio.timeout(30):
            while len(self.lines) < count:
                self._changed.clear()
                await self._changed.wait()


def web_server(kind: Kind, name: str, port: int, directory: Path, http: aiohttp.ClientSession) -> Member:
    """Make a process that is ready soon: any web server will do."""
    command = (sys.executable, "-m", "http.server", str(port), "--bind", "127.0.0.1", "-d", str(directory))
    return Member(
        kind,
        name,
        command,
        ready_url=f"http://127.0.0.1:{port}/",
        output=directory / f"{name}.log",
        environment={},
        http=http,
    )


@asynccontextmanager
async def web_servers(directory: Path) -> AsyncIterator[Cluster]:
    """Run two "nodes" and two "brokers"."""
    async with aiohttp.ClientSession() as http:
        ports = free_ports(4)
        nodes = [web_server(Kind.NODE, n, p, directory, http) for n, p in zip("ab", ports[:2], strict=True)]
        brokers = [
            web_server(Kind.BROKER, n, p, directory, http) for n, p in zip("12", ports[2:], strict=True)
        ]
        cluster = Cluster(nodes, brokers, [])
        try:
            await cluster.start()
            yield cluster
        finally:
            cluster.kill()


@contextmanager
def leading(cluster: Cluster, told: Told, stop: asyncio.Event, *, every: float) -> Iterator[Chaos]:
    """Make what kills, for a client that is connected to node b."""
    client = Client("ws://127.0.0.1:1/graphql")
    stage = Stage(client, Ledger(), stop, AsyncExitStack())
    yield Chaos(stage, cluster, every=every, serving=lambda: "b", tell=told)


@pytest.fixture(autouse=True)
def _soon_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_AWAY_SECONDS", 0.2)
    monkeypatch.setattr(module, "_LOOK_SECONDS", 0.02)


async def test_by_the_clock_the_node_that_serves_is_killed_then_a_broker(tmp_path: Path) -> None:
    told, stop = Told(), asyncio.Event()
    async with web_servers(tmp_path) as cluster:
        with leading(cluster, told, stop, every=0.1) as chaos:
            lead = asyncio.create_task(asyncio.wait_for(chaos.lead(), 30))
            await told.until(2)
            stop.set()
            await lead
        assert told.lines[:2] == ["killed: node b", "killed: broker 1"]
        # It does not end before all are back.
        assert {"back: node b", "back: broker 1"} <= set(told.lines)
        assert all(each.state is State.LIVE for each in cluster.members)
        assert chaos.kills(Kind.NODE) == sum(line.startswith("killed: node") for line in told.lines)


async def test_a_key_kills_at_once_and_never_two_of_a_kind(tmp_path: Path) -> None:
    told, stop = Told(), asyncio.Event()
    async with web_servers(tmp_path) as cluster:
        with leading(cluster, told, stop, every=NEVER) as chaos:
            lead = asyncio.create_task(asyncio.wait_for(chaos.lead(), 30))
            for kind in (Kind.NODE, Kind.NODE, Kind.BROKER, Kind.BROKER):
                chaos.ask(kind)
            await told.until(4)
            stop.set()
            await lead
            chaos.ask(Kind.NODE)
        assert told.lines[:2] == ["killed: node b", "killed: broker 1"]
        assert set(told.lines[2:]) == {"back: node b", "back: broker 1"}
        assert (chaos.kills(Kind.NODE), chaos.kills(Kind.BROKER)) == (1, 1)


async def test_what_ends_by_itself_is_told_and_started_again(tmp_path: Path) -> None:
    told, stop = Told(), asyncio.Event()
    async with web_servers(tmp_path) as cluster:
        with leading(cluster, told, stop, every=NEVER) as chaos:
            lead = asyncio.create_task(asyncio.wait_for(chaos.lead(), 30))
            victim = cluster.nodes[0]
            assert victim._process is not None
            victim._process.terminate()
            await told.until(2)
            stop.set()
            await lead
        assert told.lines[0].startswith("ended by itself: node a: ")
        assert told.lines[1] == "back: node a"
        assert (victim.ends, victim.kills) == (1, 0)


async def test_what_never_comes_up_is_one_error_with_its_last_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(member_module, "_START_SECONDS", 1.0)
    async with aiohttp.ClientSession() as http:
        (port,) = free_ports(1)
        member = Member(
            Kind.NODE,
            "a",
            (sys.executable, "-c", "import sys; sys.exit('error: no luck')"),
            ready_url=f"http://127.0.0.1:{port}/",
            output=tmp_path / "output",
            environment={},
            http=http,
        )
        with pytest.raises(MemberFailedError) as failed:
            await side_by_side([member.start()])
        member.kill()
    assert str(failed.value) == "node a does not come up: error: no luck"
