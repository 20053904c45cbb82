"""Nodes write the audit lines of one log, each its own; one is killed again and again, or for good."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import signal
from collections import Counter
from pathlib import Path

import pytest
from typer.testing import CliRunner

from circuit_breaker_sdk import Client, OfflineQueue
from circuit_breaker_sdk.cli.app import app
from circuit_breaker_sdk.events import ActivityInput, StateInput, Workflow
from circuit_breaker_server.access import audit_comparison
from circuit_breaker_server.engine.command_origin import origin_of
from circuit_breaker_server.log.jetstream import JetStreamEventLog
from circuit_breaker_server.security.audit import AuditLine, AuditPaths
from circuit_breaker_server.security.audit.verification import read, verify
from tests.cli.process import READY, Command
from tests.conformance.nats_server import NatsServer
from tests.ports import free_ports

_NODES = "abc"
_KILLS = 5
_MUTATIONS = 40


class _Nodes:
    """The processes of the nodes, by name."""

    def __init__(self, tmp_path: Path, broker: NatsServer) -> None:
        key = tmp_path / "cluster.key"
        key.write_text(secrets.token_hex(32))
        key.chmod(0o600)
        self._options = (
            *("--log", broker.url, "--cluster-key-file", str(key)),
            *("--set", "audit.enabled=true", "--log-level", "info"),
        )
        self._tmp_path = tmp_path
        self._ports = dict(zip(_NODES, free_ports(len(_NODES)), strict=True))
        self._running: dict[str, Command] = {}

    def data(self, name: str) -> Path:
        return self._tmp_path / name

    @property
    def urls(self) -> list[str]:
        return [self.url(name) for name in self._running]

    def url(self, name: str) -> str:
        return f"http://127.0.0.1:{self._ports[name]}/graphql"

    def wait_for(self, name: str, event: str) -> None:
        """Wait until a node logs an event."""
        self._running[name].wait_for(event)

    def start(self, name: str) -> None:
        port = str(self._ports[name])
        command = Command(
            "serve", "--node", name, "--port", port, "--data", str(self.data(name)), *self._options
        )
        self._running[name] = command
        command.wait_for(READY.pattern)

    def kill(self, name: str) -> None:
        self._running[name].signal(signal.SIGKILL)
        self._running.pop(name).close()

    def stop(self) -> None:
        for command in self._running.values():
            command.signal(signal.SIGINT)
            assert command.end() == 0

    def close(self) -> None:
        for command in self._running.values():
            command.close()


async def _mutate(url: str, others: list[str], workflow: str) -> None:
    async with Client([url, *others], offline_queue=OfflineQueue()) as client:
        for _ in range(_MUTATIONS):
            await client.workflows.create_resource(workflow_id=workflow)


async def _made_workflow(nodes: _Nodes) -> Workflow:
    async with Client(nodes.urls) as client:
        return await client.workflows.create_workflow(
            name="w",
            initial_state="a",
            states=[StateInput(id="a", name="A")],
            activities=[ActivityInput(id="go", from_states=["a"], to_state="a")],
        )


async def _use(nodes: _Nodes) -> None:
    workflow = await _made_workflow(nodes)
    for _ in range(_KILLS):
        mutating = [
            asyncio.create_task(_mutate(url, [each for each in nodes.urls if each != url], workflow.id))
            for url in nodes.urls
        ]
        await asyncio.sleep(0.1)  # some are under way: which ones, the seal of the log will tell
        nodes.kill("b")
        await asyncio.gather(*mutating)
        await asyncio.to_thread(nodes.start, "b")


async def _positions(broker: NatsServer) -> Counter[str]:
    log = await JetStreamEventLog.open(broker.url)
    try:
        records = [record async for record in log.scan(after=0)]
    finally:
        await log.aclose()
    return Counter(f"{log.epoch}.{record.offset}" for record in records if origin_of(record).action)


def verified(*arguments: str) -> tuple[int, list[str]]:
    ended = CliRunner().invoke(app, ["audit", "verify", *arguments])
    return ended.exit_code, ended.stdout.splitlines()


@pytest.mark.timeout(120)
def test_each_record_has_one_line_in_the_chain_of_its_node(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with NatsServer(tmp_path / "nats").running() as broker, contextlib.ExitStack() as stack:
        nodes = _Nodes(tmp_path, broker)
        stack.callback(nodes.close)
        for name in _NODES:
            nodes.start(name)
        asyncio.run(_use(nodes))
        nodes.stop()
        records = asyncio.run(_positions(broker))
        assert len(records) >= _KILLS * _MUTATIONS * len(_NODES)
        lines: Counter[str] = Counter()
        for name in _NODES:
            paths = AuditPaths.of(nodes.data(name))
            key = paths.key.read_bytes()
            assert verify(paths.log, key, paths.anchor).whole
            found = [line for line in read(paths.log, key, paths.anchor) if isinstance(line, AuditLine)]
            # A mutation that was refused has a line too, for no record.
            own = Counter(
                each for line in found if line.record.action == "mutate" if (each := line.record.record)
            )
            assert own, f"node {name} was asked for nothing"
            lines += own
        assert lines == records
        chains = [argument for name in _NODES for argument in ("--data", str(nodes.data(name)))]
        status, said = verified(*chains, "--log", broker.url)
        assert status == 0
        assert said[-1] == f"{len(records)} records of the event log have one line each"
        # A node that never comes back: what it has not written is missing, and is told once it is old.
        monkeypatch.setattr(audit_comparison, "_YOUNG_MS", -1)
        status, said = verified(*chains[:4], "--log", broker.url)
        assert status == 1
        assert "of node c without a line, and no audit log that was given is its own" in said[-2]


async def _kill_after_mutations(nodes: _Nodes, name: str) -> None:
    workflow = await _made_workflow(nodes)
    async with Client(nodes.url(name)) as client:
        await asyncio.gather(
            *(client.workflows.create_resource(workflow_id=workflow.id) for _ in range(_MUTATIONS))
        )
        nodes.kill(name)


@pytest.mark.timeout(120)
def test_the_lines_of_a_node_that_never_comes_back_are_written_by_another(tmp_path: Path) -> None:
    with NatsServer(tmp_path / "nats").running() as broker, contextlib.ExitStack() as stack:
        nodes = _Nodes(tmp_path, broker)
        stack.callback(nodes.close)
        nodes.start("a")
        nodes.start("b")
        asyncio.run(_kill_after_mutations(nodes, "b"))
        nodes.wait_for("a", "audit_lines_taken_over")
        nodes.stop()
        records = asyncio.run(_positions(broker))
        status, said = verified(
            "--data", str(nodes.data("a")), "--data", str(nodes.data("b")), "--log", broker.url
        )
        assert status == 0, said
        one_each, _, taken_over = said[-1].partition(", ")
        assert one_each == f"{len(records)} records of the event log have one line each"
        assert int(taken_over.split()[0]) > 0, "no line was missing when it was killed"
