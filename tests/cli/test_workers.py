"""``circuit-breaker serve --workers``: one port, several processes, none of which is missed."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from circuit_breaker_sdk import Client, OfflineQueue
from circuit_breaker_sdk.cli import workers
from circuit_breaker_sdk.cli.app import app
from circuit_breaker_sdk.cli.exit_codes import ExitCode
from circuit_breaker_sdk.cli.runtime import Stop
from circuit_breaker_sdk.events import ActivityInput, StateInput
from circuit_breaker_server import ServerSettings
from circuit_breaker_server.storage.private_files import exposed_files
from tests.cli.process import READY, complain, running
from tests.conformance.nats_server import NatsServer
from tests.ports import free_port

_COUNT = 120


def children(pid: int) -> dict[int, str]:
    """Return the processes that a process has started, with their command lines."""
    listed = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return {
        int(child): Path(f"/proc/{child}/cmdline").read_bytes().replace(b"\0", b" ").decode()
        for child in listed
    }


async def use(url: str, kill: list[int]) -> tuple[list[str], list[str]]:
    """Make resources while workers are killed; return what was made, and what a subscriber has heard of."""
    heard: list[str] = []
    async with Client(url, offline_queue=OfflineQueue()) as client:
        workflow = await client.workflows.create_workflow(
            name="w",
            initial_state="a",
            states=[StateInput(id="a", name="A")],
            activities=[ActivityInput(id="go", from_states=["a"], to_state="a")],
        )
        updates = await client.workflows.subscribe_resource_updates(workflow_id=workflow.id).subscribe()
        made: list[str] = []
        for number in range(_COUNT):
            if kill and number % 40 == 20:
                os.kill(kill.pop(), signal.SIGKILL)
            made.append((await client.workflows.create_resource(workflow_id=workflow.id)).id)
        async with asyncio.timeout(30):
            async for update in updates:
                heard.append(update.id)
                if len(heard) == _COUNT:
                    break
    return made, heard


def test_workers_share_a_port_and_their_deaths_are_missed_by_nobody(tmp_path: Path) -> None:
    options = ("serve", "--workers", "2", "--port", "0", "--data", str(tmp_path / "data"))
    with running(*options) as server:
        url = server.wait_for(READY.pattern)
        started = children(server.process.pid)
        assert sum("--node main-" in args for args in started.values()) == 2
        workers = [pid for pid, args in started.items() if "--node main-" in args]
        made, heard = asyncio.run(use(url, workers))
        assert heard == made
        server.signal(signal.SIGTERM)
        assert server.end() == 0
        assert all(not Path(f"/proc/{pid}").exists() for pid in started)
    with running(*options) as server:
        assert asyncio.run(use(server.wait_for(READY.pattern), [])) is not None
        server.signal(signal.SIGINT)
        assert server.end() == 0


def test_workers_end_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    with running("serve", "--workers", "2", "--port", "0", "--data", str(tmp_path / "data")) as server:
        server.wait_for(READY.pattern)
        started = children(server.process.pid)
        server.signal(signal.SIGKILL)
        server.end()  # the end of their output: they have ended as well
        assert len(started) == 2


def test_no_worker_is_started_again_while_all_are_stopped(tmp_path: Path) -> None:
    with running("serve", "--workers", "2", "--port", "0", "--data", str(tmp_path / "data")) as server:
        server.wait_for(READY.pattern)
        started = children(server.process.pid)
        killed = next(pid for pid, args in started.items() if "--node main-1" in args)
        os.kill(killed, signal.SIGKILL)
        server.wait_for("worker 1: ended with status -9")
        server.signal(signal.SIGINT)
        assert server.end() == 0
        assert server.out.count("worker 1: ready") == 1


def test_workers_and_one_process_serve_the_same_directory_in_turn(tmp_path: Path) -> None:
    made: list[str] = []
    for options in ((), ("--workers", "2"), ()):
        with running("serve", *options, "--port", "0", "--data", str(tmp_path)) as server:
            url = server.wait_for(READY.pattern)
            made += asyncio.run(use(url, []))[0]
            assert asyncio.run(workflow_names(url)) == ["w"] * (len(made) // _COUNT)
            server.signal(signal.SIGTERM)
            assert server.end() == 0


async def workflow_names(url: str) -> list[str]:
    async with Client(url) as client:
        answer = await client.execute("{ workflows { name } }")
        return [each["name"] for each in answer["workflows"]]


def test_the_audit_logs_of_workers_have_one_line_for_each_record(tmp_path: Path) -> None:
    audited = ("--set", "audit.enabled=true", "--port", "0", "--data", str(tmp_path))
    for options in (("--workers", "2"), ()):
        with running("serve", *options, *audited) as server:
            asyncio.run(use(server.wait_for(READY.pattern), []))
            server.signal(signal.SIGTERM)
            assert server.end() == 0
    backup, again = str(tmp_path.parent / "backup"), str(tmp_path.parent / "again")
    for command in (("backup", backup, "--data", str(tmp_path)), ("restore", backup, "--data", again)):
        assert CliRunner().invoke(app, command).exit_code == 0
    for place in (str(tmp_path), again):
        chains = CliRunner().invoke(app, ["audit", "verify", "--data", place, "--log", place])
        assert chains.exit_code == 0, chains.stdout
        said = chains.stdout.splitlines()
        assert sum("chain whole" in line for line in said) == 3
        assert said[-1] == f"{2 * (_COUNT + 1)} records of the event log have one line each"


def test_a_record_that_no_worker_can_apply_is_the_end_of_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As a worker that has stopped at the record, and stops there again when it is started.
    ran = tmp_path / "ran"
    script = (
        f"import pathlib, sys; ran = pathlib.Path({str(ran)!r}).exists()\n"
        f"pathlib.Path({str(ran)!r}).touch()\n"
        f"sys.exit({int(ExitCode.FAIL_STOP)}) if ran else print('ready: http://127.0.0.1:1/graphql (it)')\n"
    )
    monkeypatch.setattr(workers._Workers, "_command", lambda *_: [sys.executable, "-c", script])
    monkeypatch.setattr(workers, "_AGAIN_SECONDS", 0.01)

    async def run() -> int:
        settings = ServerSettings(data_dir=tmp_path / "data", log_level="critical")
        return await workers._Workers(settings, (), 1, 1).run(Stop())

    assert asyncio.run(run()) == ExitCode.FAIL_STOP


def test_a_directory_that_another_process_serves_is_refused(tmp_path: Path) -> None:
    with running("serve", "--port", "0", "--data", str(tmp_path)) as server:
        server.wait_for(READY.pattern)
        status, line = complain("serve", "--workers", "2", "--port", "0", "--data", str(tmp_path))
        server.signal(signal.SIGINT)
        assert server.end() == 0
    assert status == ExitCode.UNREACHABLE
    assert str(tmp_path) in line


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--log", "nats://127.0.0.1:1"), "--workers with --log needs --cluster-key-file"),
        (("--host", "0.0.0.0"), "insecure"),  # noqa: S104 (refused)
        (("--set", "network.nothing=1"), "network.nothing"),
    ],
)
def test_what_cannot_be_served_is_one_line(tmp_path: Path, options: tuple[str, ...], said: str) -> None:
    status, line = complain("serve", "--workers", "2", "--port", "0", "--data", str(tmp_path), *options)
    assert status == ExitCode.USAGE
    assert said in line


def test_the_directories_of_workers_are_private(tmp_path: Path) -> None:
    with NatsServer(tmp_path / "nats").running() as broker:
        key = tmp_path / "cluster.key"
        key.touch(0o600)
        key.write_text(os.urandom(32).hex())
        shared = ("--log", broker.url, "--cluster-key-file", str(key))
        for name, options in (("file", ()), ("brokers", shared)):
            data = tmp_path / name
            with running("serve", "--workers", "2", "--port", "0", "--data", str(data), *options) as server:
                server.wait_for(READY.pattern)
                assert exposed_files(data) == []
                server.signal(signal.SIGINT)
                assert server.end() == 0
                assert "data_exposed" not in "".join(server.err)


def test_a_metrics_port_that_is_in_use_is_named_as_such(tmp_path: Path) -> None:
    options = ("--port", "0", "--data", str(tmp_path / "data"), "--metrics-port")
    port = free_port()
    with socket.create_server(("127.0.0.1", port)):
        status, line = complain("serve", "--workers", "2", *options, str(port - 1))
        assert status == ExitCode.UNREACHABLE
        assert f"cannot listen on 127.0.0.1:{port}, the metrics port of worker 2: the port is in use" in line
        status, line = complain("serve", *options, str(port))
        assert status == ExitCode.UNREACHABLE
        assert f"cannot listen on 127.0.0.1:{port}, the metrics port: the port is in use" in line
    status, line = complain("serve", "--workers", "2", *options, "65535")
    assert status == ExitCode.USAGE
    assert "the metrics port of worker 2 would be 65536" in line


def test_workers_that_cannot_start_are_the_end(tmp_path: Path) -> None:
    key = tmp_path / "cluster.key"
    key.write_text("00" * 32)
    key.chmod(0o600)
    options = ("--log", "nats://127.0.0.1:1", "--cluster-key-file", str(key))
    status, line = complain(
        *("serve", "--workers", "2", "--port", "0", "--data", str(tmp_path / "data")),
        *(*options, "--set", "cluster.connect_seconds=0.3"),
    )
    assert status == ExitCode.UNREACHABLE
    assert "cannot connect to NATS" in line
