"""``circuit-breaker log copy`` as a process."""

from __future__ import annotations

import asyncio
import os
import signal
import uuid
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from circuit_breaker_sdk.cli.exit_codes import ExitCode
from circuit_breaker_server.log.event_log import NewRecord
from circuit_breaker_server.log.sqlite import SqliteEventLog
from tests.cli.process import READY, Command, complain, running
from tests.conformance.nats_server import NatsServer


async def _write(data: Path) -> None:
    log = await SqliteEventLog.open(data)
    await log.append(NewRecord(subject="a", id=uuid.uuid4().hex, data=b"{}"))
    await log.aclose()


def test_a_log_is_copied_there_and_back_with_one_line_each(tmp_path: Path) -> None:
    asyncio.run(_write(tmp_path / "data"))
    with NatsServer(tmp_path / "nats").running() as broker:
        digests = []
        for places in ((str(tmp_path / "data"), broker.url), (broker.url, str(tmp_path / "back"))):
            with running("log", "copy", *places, "--set", "cluster.stream=moved") as command:
                assert command.end() == 0, command.err
            (line,) = command.out
            assert line.startswith("copied 1 records, 1 to 1, and the snapshot at 0 to ")
            digests.append(line.rpartition(" ")[2])
        assert digests[0] == digests[1]


def test_a_log_that_nodes_serve_is_neither_copied_nor_repaired(tmp_path: Path) -> None:
    asyncio.run(_write(tmp_path / "data"))
    key = tmp_path / "cluster.key"
    key.touch(0o600)
    key.write_text(os.urandom(32).hex())

    def node(name: str) -> AbstractContextManager[Command]:
        shared = ("--log", broker.url, "--node", name, "--cluster-key-file", str(key))
        return running("serve", "--port", "0", "--data", str(tmp_path / name), *shared)

    with NatsServer(tmp_path / "nats").running() as broker:
        back = ("log", "copy", broker.url, str(tmp_path / "back"))
        with node("ada") as ada, node("bob") as bob:
            for each in (ada, bob):
                each.wait_for(READY.pattern)
            there = ("log", "copy", str(tmp_path / "data"), broker.url)
            repair = ("log", "skip", "1", "--reason", "a mistake", "--log", broker.url)
            for command in (back, there, repair):
                status, line = complain(*command)
                assert status == ExitCode.UNREACHABLE
                assert line.endswith("is served by ada, bob: stop these nodes first")
            assert not (tmp_path / "back").exists()
            for each in (ada, bob):
                each.signal(signal.SIGTERM)
                assert each.end() == 0
        with running(*back) as copying:
            assert copying.end() == 0, copying.err


@pytest.mark.parametrize(
    ("places", "status", "says"),
    [
        (("nats://a", "nats://b"), ExitCode.USAGE, "one of FROM and TO must be a data directory"),
        (("data", "nats://u:hush@b"), ExitCode.USAGE, "TO: cluster.urls: urls must hold no user"),
        (("nowhere", "elsewhere"), ExitCode.UNREACHABLE, "has no event log"),
    ],
)
def test_what_cannot_be_copied_is_one_line(places: tuple[str, str], status: int, says: str) -> None:
    found, line = complain("log", "copy", *places)
    assert found == status
    assert says in line
    assert "hush" not in line
