"""``circuit-breaker serve --log`` on a real broker, and the one line of each start that fails."""

from __future__ import annotations

import asyncio
import re
import signal
from pathlib import Path

import pytest

from circuit_breaker_sdk import Client
from circuit_breaker_sdk.cli.exit_codes import ExitCode
from circuit_breaker_sdk.events import ActivityInput, StateInput
from circuit_breaker_server.log.jetstream import JetStreamEventLog
from tests.cli.process import READY, complain, running
from tests.conformance.nats_server import NatsServer
from tests.ports import free_ports
from tests.server.engine.ghost_record import ghost
from tests.server.log.jetstream.log_stage import api, connected


def refused(tmp_path: Path, url: str, *more: str) -> str:
    """Start a server that must not start for its broker's sake; return the line that says why."""
    options = ("--port", "0", "--data", str(tmp_path / "data"), "--log", url)
    status, line = complain("serve", *options, "--set", "cluster.connect_seconds=0.5", *more)
    assert status == ExitCode.UNREACHABLE
    return line


async def _replace_streams(url: str) -> None:
    async with connected(url) as client:
        for name in ("events", "events-state"):
            made = await api(client, f"STREAM.INFO.{name}")
            config = made["config"]
            config["metadata"] = {**config["metadata"], "circuit-breaker-epoch": "00000000deadbeef"}
            await api(client, f"STREAM.DELETE.{name}")
            await api(client, f"STREAM.CREATE.{name}", config)


def test_a_server_on_a_broker_serves_and_stops_with_8_when_its_stream_is_replaced(tmp_path: Path) -> None:
    async def use(url: str) -> None:
        async with Client(url) as client:
            await client.workflows.create_workflow(
                name="w",
                initial_state="a",
                states=[StateInput(id="a", name="A")],
                activities=[ActivityInput(id="go", from_states=["a"], to_state="a")],
            )

    with NatsServer(tmp_path / "nats").running() as broker:
        options = ("serve", "--port", "0", "--data", str(tmp_path / "data"), "--log", broker.url)
        with running(*options) as server:
            asyncio.run(use(server.wait_for(READY.pattern)))
            server.signal(signal.SIGINT)
            assert server.end() == 0
        with running(*options) as server:
            server.wait_for(READY.pattern)
            asyncio.run(_replace_streams(broker.url))
            assert server.end() == ExitCode.FAIL_STOP
            assert "replaced by another log; start this server again" in server.err[-1]


def test_a_broker_that_cannot_be_used_is_one_line_and_status_3(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    assert "cannot connect to NATS" in refused(tmp_path, f"nats://127.0.0.1:{port}")
    with NatsServer(tmp_path / "off", jetstream=False).running() as broker:
        assert "JetStream is off" in refused(tmp_path, broker.url)
    password = tmp_path / "password"
    password.write_text("wrong-one")
    more = 'authorization { users: [{user: "circuit", password: "right-one"}] }'
    with NatsServer(tmp_path / "nats", more=more).running() as broker:
        named = ("--set", "cluster.user=circuit", "--set", f"cluster.password_file={password}")
        line = refused(tmp_path, broker.url, *named)
        assert "refuses the credentials" in line
        assert "wrong-one" not in line


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("nats://user:hush@127.0.0.1:4222", "must hold no user, password or token"),
        ("http://127.0.0.1:4222", "must be as nats://host:port"),
    ],
)
def test_a_url_that_cannot_be_is_refused_and_no_password_is_shown(url: str, says: str) -> None:
    for more in ((), ("--print-config",)):
        status, line = complain("serve", "--log", url, *more)
        assert status == ExitCode.USAGE
        assert re.search(r"--log: cluster\.urls: urls", line)
        assert says in line
        assert "hush" not in line


def test_the_settings_of_the_brokers_are_printed_with_the_names_of_their_files(tmp_path: Path) -> None:
    secret = tmp_path / "token"
    secret.write_text("hush")
    urls = "nats://a:4222,tls://b:4222"
    with running("serve", "--log", urls, f"--set=cluster.token_file={secret}", "--print-config") as command:
        assert command.end() == 0
    assert 'urls = ["nats://a:4222", "tls://b:4222"]  # --log' in command.out
    assert f'token_file = "{secret}"  # --set' in command.out
    assert "hush" not in "\n".join(command.out)


async def _write_ghost(url: str) -> None:
    log = await JetStreamEventLog.open(url)
    await log.append(ghost())
    await log.aclose()


def test_a_record_on_a_broker_that_cannot_be_applied_is_skipped(tmp_path: Path) -> None:
    with NatsServer(tmp_path / "nats").running() as broker:
        asyncio.run(_write_ghost(broker.url))
        options = ("serve", "--port", "0", "--data", str(tmp_path / "data"), "--log", broker.url)
        with running(*options) as server:
            assert server.end() == ExitCode.FAIL_STOP
        with running("log", "skip", "1", "--reason", "a defect", "--log", broker.url) as command:
            assert command.end() == 0, command.err
            assert command.out == ["record 1 is skipped by record 2: a defect; start the server again"]
        with running(*options) as server:
            server.wait_for(READY.pattern)
            server.signal(signal.SIGINT)
            assert server.end() == 0


def test_a_server_without_its_broker_still_stops_on_a_signal(tmp_path: Path) -> None:
    with NatsServer(tmp_path / "nats").running() as broker:
        options = ("serve", "--port", "0", "--data", str(tmp_path / "data"), "--log", broker.url)
        with running(*options, "--set", "cluster.write_patience_seconds=0.5") as server:
            server.wait_for(READY.pattern)
            broker.kill()
            server.signal(signal.SIGTERM)
            assert server.end() == 0
