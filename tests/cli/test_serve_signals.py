"""How ``serve`` ends: SIGTERM drains it, Ctrl-C and a second signal do not wait."""

from __future__ import annotations

import asyncio
import os
import signal
import time
import urllib.request
from pathlib import Path

import pytest

from circuit_breaker_sdk.cli.exit_codes import ExitCode
from circuit_breaker_sdk.cli.runtime import Stop, run
from tests.cli.process import READY, Command, running
from tests.server.stage import Client
from tests.transports.peers import raw_client

SOCKETS = 120
"""A drain takes 10 ms for each."""


@pytest.mark.parametrize(("number", "is_termination"), [(signal.SIGINT, False), (signal.SIGTERM, True)])
def test_a_command_knows_which_signal_it_was(number: signal.Signals, is_termination: bool) -> None:
    async def command(stop: Stop) -> int:
        os.kill(os.getpid(), number)
        await asyncio.wait_for(stop.wait(), 10)
        return int(stop.is_termination)

    assert run(command) == is_termination


async def closing_seconds(server: Command, url: str, *signals: signal.Signals) -> float:
    """Send the signals, each after the first close that is heard; return from the first close to the last."""
    port = int(url.rpartition(":")[2].partition("/")[0])
    clients = [Client(await raw_client(port)) for _ in range(SOCKETS)]
    for client in clients:
        assert "101" in await client.peer.read_head()
        await client.init()
    closed: list[float] = []
    first_closed = asyncio.Event()

    async def watch(client: Client) -> None:
        assert await client.close_code() == 1012
        closed.append(time.monotonic())
        first_closed.set()
        await client.leave()

    watching = [asyncio.create_task(watch(client)) for client in clients]
    for number in signals:
        server.signal(number)
        await first_closed.wait()
    await asyncio.gather(*watching)
    return max(closed) - min(closed)


@pytest.mark.parametrize(
    ("signals", "is_slow", "status"),
    [
        ((signal.SIGTERM,), True, ExitCode.OK),
        ((signal.SIGINT,), False, ExitCode.OK),
        ((signal.SIGTERM, signal.SIGTERM), False, ExitCode.INTERRUPTED),
        ((signal.SIGTERM, signal.SIGINT), False, ExitCode.INTERRUPTED),
    ],
)
async def test_a_supervisor_waits_for_connections_and_a_person_does_not(
    tmp_path: Path, signals: tuple[signal.Signals, ...], is_slow: bool, status: ExitCode
) -> None:
    with running("serve", "--port", "0", "--data", str(tmp_path)) as server:
        url = server.wait_for(READY.pattern)
        seconds = await closing_seconds(server, url, *signals)
        assert (seconds > 0.9) is is_slow, seconds
        assert server.end() == status


def test_the_command_tells_where_the_metrics_are(tmp_path: Path) -> None:
    with running("serve", "--port", "0", "--data", str(tmp_path), "--metrics-port", "0") as server:
        url = server.wait_for(r"metrics: (http://127\.0\.0\.1:\d+/metrics)")
        server.wait_for(READY.pattern)
        with urllib.request.urlopen(url, timeout=10) as answer:
            assert b"circuit_breaker_ready 1.0" in answer.read()
        server.signal(signal.SIGINT)
        assert server.end() == ExitCode.OK
