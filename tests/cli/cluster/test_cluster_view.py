"""The picture of the cluster, whom events are counted for, and the keys that are read."""

from __future__ import annotations

import asyncio
import io
import os
import pty
from pathlib import Path

import aiohttp
import pytest
from rich.console import Console

from circuit_breaker_sdk import ConnectionState
from circuit_breaker_sdk.cli.cluster.deliveries import Deliveries
from circuit_breaker_sdk.cli.cluster.keyboard import keys_are_read, on_keys
from circuit_breaker_sdk.cli.cluster.member import Kind, Member, State
from circuit_breaker_sdk.cli.cluster.processes import Cluster
from circuit_breaker_sdk.cli.cluster.view import ClusterView
from circuit_breaker_sdk.cli.demo.judge import Verdict
from circuit_breaker_sdk.cli.demo.table import Row
from circuit_breaker_sdk.cli.demo.tally import Mutations, Tally
from circuit_breaker_sdk.connections import ConnectionStateChange

CLEAN = Verdict(lost=0, duplicated=0, reordered=0)
URLS = ("ws://127.0.0.1:4001/graphql", "ws://127.0.0.1:4002/graphql")


def member(kind: Kind, name: str, http: aiohttp.ClientSession) -> Member:
    return Member(kind, name, (), ready_url="", output=Path(), environment={}, http=http)


async def made() -> Cluster:
    async with aiohttp.ClientSession() as http:
        nodes = [member(Kind.NODE, name, http) for name in "ab"]
        return Cluster(nodes, [member(Kind.BROKER, "1", http)], URLS)


def connected_to(url: str, now: ConnectionState = ConnectionState.CONNECTED) -> ConnectionStateChange:
    return ConnectionStateChange(before=ConnectionState.CONNECTING, now=now, url=url)


def deliveries_of(cluster: Cluster) -> Deliveries:
    """Let three events come: two from a, one from b."""
    times = iter((1.0, 1.5, 4.0))
    deliveries = Deliveries(cluster.nodes, cluster.urls, now=lambda: next(times))
    deliveries.on_state(connected_to(URLS[0]))
    deliveries.on_event("workflows.resourceUpdates")
    deliveries.on_event("workflows.workflowEvents")
    deliveries.on_state(connected_to(URLS[1], ConnectionState.CONNECTING))
    assert deliveries.node == "a"
    deliveries.on_state(connected_to(URLS[1]))
    deliveries.on_event("workflows.resourceUpdates")
    return deliveries


async def test_events_are_counted_for_the_node_that_the_client_is_connected_to() -> None:
    cluster = await made()
    deliveries = deliveries_of(cluster)
    assert deliveries.by_node == {"a": 2, "b": 1}
    assert deliveries.last_node == {"workflows.resourceUpdates": "b", "workflows.workflowEvents": "a"}
    assert deliveries.longest_pause_seconds == 2.5


async def test_the_picture_has_nodes_kills_and_what_must_stay_zero() -> None:
    cluster = await made()
    cluster.nodes[0].kills, cluster.nodes[1].state, cluster.brokers[0].kills = 3, State.LIVE, 2
    deliveries = deliveries_of(cluster)
    view = ClusterView(cluster, deliveries, certain=lambda: CLEAN, keys="n kills a node")
    rows = [Row(Tally(operation="workflows.resourceUpdates", events=2, last_event="[x] approved"), 1.0, None)]

    def drawn(verdict: Verdict | None) -> list[list[str]]:
        text = io.StringIO()
        picture = view(rows, title="Three", mutations=Mutations(7, 1), verdict=verdict)
        Console(file=text, width=160).print(picture)
        return [line.replace("│", " ").split() for line in text.getvalue().splitlines()]

    running = drawn(None)
    assert ["workflows.resourceUpdates", "2", "1", "-", "-", "b", "[x]", "approved"] in running
    assert ["node", "a", "killed", "3", "2"] in running
    assert ["node", "b", "live", "0", "1"] in running
    assert ["broker", "1", "killed", "2"] in running
    counters = "lost 0, doubled 0, reordered 0; nodes killed 3, brokers killed 2; longest pause between "
    assert (counters + "events 2.5 s").split() in running
    assert ["n", "kills", "a", "node"] in running
    ended = drawn(Verdict(lost=4, duplicated=0, reordered=0))
    assert any(line[:2] == ["lost", "4,"] for line in ended)
    assert any(line[:3] == ["events", "lost:", "4,"] for line in ended)
    assert ["n", "kills", "a", "node"] not in ended


async def test_keys_of_a_terminal_are_read_one_by_one_and_the_terminal_is_given_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    parent, child = pty.openpty()
    with os.fdopen(child) as stdin:
        monkeypatch.setattr("sys.stdin", stdin)
        assert keys_are_read()
        import termios

        before = termios.tcgetattr(child)
        pressed: asyncio.Queue[str] = asyncio.Queue()
        keys = {"n": lambda: pressed.put_nowait("node"), "b": lambda: pressed.put_nowait("broker")}
        with on_keys(keys):
            os.write(parent, b"Bxn")
            async with asyncio.timeout(10):
                assert [await pressed.get(), await pressed.get()] == ["broker", "node"]
        assert termios.tcgetattr(child) == before
    os.close(parent)


async def test_without_a_terminal_no_key_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("n"))
    assert not keys_are_read()
    with on_keys({"n": lambda: pytest.fail("a key was read")}):
        await asyncio.sleep(0)
