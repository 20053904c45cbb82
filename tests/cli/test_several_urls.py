"""``--url`` given several times: the servers of a cluster, of which the next is asked where one is away."""

from __future__ import annotations

import json
import os
import signal
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from circuit_breaker_sdk.cli.exit_codes import ExitCode
from tests.cli.process import READY, Command, running
from tests.conformance.nats_server import NatsServer
from tests.ports import free_ports


def urls(*given: str) -> list[str]:
    return [part for url in given for part in ("--url", url)]


def ended(*arguments: str, environment: dict[str, str] | None = None) -> tuple[int, list[str], str]:
    with running(*arguments, environment=environment) as command:
        return command.end(), command.out, " ".join(command.err)


def test_watch_goes_on_at_the_next_url_where_its_server_is_killed(tmp_path: Path) -> None:
    key = tmp_path / "cluster.key"
    key.touch(0o600)
    key.write_text(os.urandom(32).hex())
    (dead,) = free_ports(1)

    def node(name: str, broker: NatsServer) -> AbstractContextManager[Command]:
        shared = ("--log", broker.url, "--node", name, "--cluster-key-file", str(key))
        return running("serve", "--port", "0", "--data", str(tmp_path / name), *shared)

    with (
        NatsServer(tmp_path / "nats").running() as broker,
        node("ada", broker) as first,
        node("bob", broker) as second,
    ):
        a, b = (each.wait_for(READY.pattern) for each in (first, second))
        given = urls(f"http://127.0.0.1:{dead}/graphql", a, b)
        with running("watch", "resource-updates", *given) as watching:
            watching.wait_for(f"^connected: {a}$")
            watching.wait_for("^live: resource-updates")
            first.signal(signal.SIGKILL)
            watching.wait_for(f"^connected: {b}$")
            watching.wait_for("^live: again")
            assert ended("resource", "do", "--example", *urls(a, b))[0] == 0
            assert json.loads(watching.wait_for(r"^\{.*\}$"))
            watching.signal(signal.SIGINT)
            assert watching.end() == ExitCode.INTERRUPTED


@pytest.mark.parametrize(
    "command", [("query", "{ __typename }"), ("schema",), ("workflow", "list"), ("resource", "list")]
)
def test_the_next_url_is_asked_where_the_first_is_away(tmp_path: Path, command: tuple[str, ...]) -> None:
    (dead,) = free_ports(1)
    away = f"http://127.0.0.1:{dead}/graphql"
    with running("serve", "--port", "0", "--data", str(tmp_path)) as server:
        url = server.wait_for(READY.pattern)
        # The last one was the only one that was asked.
        assert ended(*command, *urls(url, away))[0] == 0
        assert ended(*command, *urls(away, url))[0] == 0
        assert ended(*command, environment={"CIRCUIT_BREAKER_URL": f"{away} {url}"})[0] == 0


@pytest.mark.parametrize(
    "command",
    [
        ("nodes", "--url", "http://a", "--url", "http://b"),
        ("nodes", "http://a", "--url", "http://b"),
        ("nodes", "http://a", "http://b"),
        ("doctor", "http://a", "http://b"),
    ],
)
def test_a_command_that_asks_one_server_refuses_several(command: tuple[str, ...]) -> None:
    status, out, err = ended(*command)
    assert (status, out) == (ExitCode.USAGE, [])
    assert "this command asks one server: give one URL, not 2" in " ".join(err.replace("│", " ").split())
