"""A client through an HTTP proxy that others wrote (proxy.py), which wants credentials."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from circuit_breaker_sdk import (
    CircuitBreakerPolicy,
    Client,
    ConnectionFailed,
    Continuity,
    ErrorRecoveryPolicy,
)
from circuit_breaker_sdk.testing import FaultProxy
from circuit_breaker_server import Server, ServerSettings
from tests.integration.workflows import create_review_workflow, number_of
from tests.server.certificates import Authority
from tests.waiting import until

CREDENTIALS = "some-user:hunter2-secret"


@contextlib.contextmanager
def proxy_process(directory: Path) -> Iterator[int]:
    """Run the proxy on a free port, which is yielded."""
    port_file = directory / "port"
    arguments = ["--hostname", "127.0.0.1", "--port", "0", "--port-file", str(port_file)]
    arguments += ["--basic-auth", CREDENTIALS, "--num-workers", "1", "--num-acceptors", "1"]
    arguments += ["--data-dir", str(directory), "--ca-cert-dir", str(directory), "--log-level", "ERROR"]
    with subprocess.Popen(
        [sys.executable, "-m", "proxy", *arguments], start_new_session=True, cwd=directory
    ) as process:
        try:
            yield _port_in(port_file, process)
        finally:
            # With the processes that it has started.
            os.killpg(process.pid, signal.SIGKILL)


def _port_in(file: Path, process: subprocess.Popen[bytes]) -> int:
    for _ in range(300):
        with contextlib.suppress(FileNotFoundError, ValueError):
            return int(file.read_text())
        assert process.poll() is None, "the proxy did not start"
        time.sleep(0.1)
    raise AssertionError("the proxy did not start in time")


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Give the proxy's URL, with credentials."""
    with proxy_process(tmp_path_factory.mktemp("proxy")) as port:
        yield f"http://{CREDENTIALS}@127.0.0.1:{port}"


@pytest.mark.parametrize("scheme", ["ws", "wss"])
async def test_streams_queries_and_polls_go_through_and_a_cut_loses_nothing(
    tmp_path: Path, proxy: str, scheme: str
) -> None:
    authority = Authority()
    certificate, key = authority.write(tmp_path)
    tls = {"tls_cert": certificate, "tls_key": key} if scheme == "wss" else {}
    settings = ServerSettings(port=0, data_dir=tmp_path / "data", **tls)  # type: ignore[arg-type]
    context = authority.context()
    async with (
        Server(settings) as server,
        FaultProxy("127.0.0.1", server.port) as line,
        Client(f"{scheme}://127.0.0.1:{server.port}/graphql", ssl=context) as direct,
        Client(
            f"{scheme}://127.0.0.1:{line.port}/graphql",
            ssl=context,
            proxy=proxy,
            recovery=ErrorRecoveryPolicy(base_delay=0.01, max_delay=0.05),
            circuit_breaker=CircuitBreakerPolicy(failure_threshold=2, open_seconds=0.2),
        ) as client,
    ):
        assert await client.server_health() == "ok"
        workflow = (await create_review_workflow(client)).id
        builder = client.workflows.subscribe_resource_updates(workflow_id=workflow)
        updates = await builder.critical().subscribe()
        for n in range(9):
            if n in {3, 6}:
                # At 3 it comes back; from 6 on there are only polls, where upgrades can be seen.
                line.refuses_upgrades = n == 6 and scheme == "ws"
                line.cut()
                if line.refuses_upgrades:
                    await until(lambda: updates.transport == "sse")
            await direct.workflows.create_resource(workflow_id=workflow, data={"n": n})
        seen: list[object] = []
        async with asyncio.timeout(20):
            while len(seen) < 9:
                seen.append(number_of(await anext(updates)))
        assert seen == list(range(9))
        assert updates.continuity is Continuity.OK
        assert line.connections_made >= 3


@pytest.mark.parametrize("credentials", ["", "some-user:wrong-secret@"])
async def test_the_proxy_refuses_other_credentials(proxy: str, credentials: str) -> None:
    place = proxy.rpartition("@")[2]
    async with Client("ws://127.0.0.1:1/graphql", proxy=f"http://{credentials}{place}") as client:
        with pytest.raises(ConnectionFailed, match=f"the proxy {place} gave no connection .HTTP 407"):
            await client.subscriptions.resource_updates().subscribe()
        with pytest.raises(ConnectionFailed, match=f"the proxy {place} gave no connection .HTTP 407"):
            await client.server_health()


async def test_the_proxy_cannot_reach_the_server(proxy: str) -> None:
    place = proxy.rpartition("@")[2]
    async with Client("wss://127.0.0.1:1/graphql", proxy=proxy) as client:
        with pytest.raises(ConnectionFailed, match=f"the proxy {place}"):
            await client.subscriptions.resource_updates().subscribe()
        with pytest.raises(ConnectionFailed, match=f"the proxy {place}"):
            await client.server_health()
