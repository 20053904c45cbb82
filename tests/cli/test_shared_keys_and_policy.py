"""``circuit-breaker keys`` and ``policy publish`` on the bucket of a cluster."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from circuit_breaker_sdk.cli.exit_codes import ExitCode
from tests.cli.process import READY, complain, running
from tests.conformance.nats_server import NatsServer


@pytest.fixture(name="broker")
def _broker(tmp_path: Path) -> Iterator[NatsServer]:
    with NatsServer(tmp_path / "nats").running() as broker:
        yield broker


@pytest.fixture(name="key")
def _key(tmp_path: Path) -> Path:
    path = tmp_path / "cluster.key"
    path.touch(0o600)
    path.write_text(os.urandom(32).hex() + "\n")
    return path


def ask(*arguments: str) -> list[str]:
    with running(*arguments) as command:
        assert command.end() == 0, command.err
        return command.out


def test_keys_are_made_listed_and_revoked_on_the_brokers(
    tmp_path: Path, broker: NatsServer, key: Path
) -> None:
    options = ("--log", broker.url, "--set", f"cluster.key_file={key}")
    (text,) = ask("keys", "create", "--principal", "user-7", "--label", "laptop", *options)
    config = tmp_path / "server.toml"
    config.write_text(f'[cluster]\nurls = ["{broker.url}"]\nkey_file = "cluster.key"\n')
    (line,) = ask("keys", "list", "--json", "--config", str(config))
    listed = json.loads(line)
    assert (listed["id"], listed["state"], listed["principal"]) == (text[4:16], "active", "user-7")
    ask("keys", "revoke", listed["id"], *options)
    (line,) = ask("keys", "list", "--json", *options)
    assert json.loads(line)["state"] == "revoked"
    status, said = complain("keys", "revoke", text, *options)
    assert status == ExitCode.REFUSED
    assert "there is no key of that id" in said
    assert text not in said


@pytest.mark.parametrize("workers", [(), ("--workers", "2")])
def test_a_directory_without_the_servers_keys_is_told_with_what_to_add(
    tmp_path: Path, broker: NatsServer, key: Path, workers: tuple[str, ...]
) -> None:
    data = ("--data", str(tmp_path / "n1"))
    shared = ("--log", broker.url, "--set", f"cluster.key_file={key}")
    with running("serve", "--port", "0", "--api-keys", "--node", "n1", *workers, *data, *shared) as server:
        server.wait_for(READY.pattern)
        create = ("keys", "create", "--principal", "ada")
        for arguments in (create, ("keys", "list")):
            with running(*arguments, *data) as command:
                assert command.end() == 0
                assert "add --log URL --set cluster.key_file=FILE" in command.err[0]
                text = command.out[-1]
        with running("keys", "revoke", text.split()[0], *data) as command:
            assert command.end() == 0
            assert "add --log URL --set cluster.key_file=FILE" in command.err[0]
        for place in ((*data, *shared), ("--data", str(tmp_path / "new"))):
            with running(*create, *place) as command:
                assert command.end() == 0
                assert [line.partition(":")[0] for line in command.err] == ["created"]


def test_a_directory_with_an_event_log_has_its_keys(tmp_path: Path) -> None:
    data = ("--data", str(tmp_path))
    with running("serve", "--port", "0", "--api-keys", *data) as server:
        server.wait_for(READY.pattern)
        with running("keys", "create", "--principal", "ada", *data) as command:
            assert command.end() == 0
            assert [line.partition(":")[0] for line in command.err] == ["created"]


def test_what_is_amiss_is_one_line(tmp_path: Path, broker: NatsServer, key: Path) -> None:
    status, said = complain("keys", "list", "--log", broker.url)
    assert status == ExitCode.USAGE
    assert "cluster.key_file" in said
    status, said = complain("keys", "list", "--log", broker.url, "--set", f"cluster.key_file={tmp_path}/no")
    assert status == ExitCode.UNREACHABLE
    assert "the cluster key cannot be read" in said
    status, said = complain("keys", "list", "--log", "nats://u:hush@a", "--set", f"cluster.key_file={key}")
    assert status == ExitCode.USAGE
    assert "must hold no user" in said
    assert "hush" not in said
    ask("keys", "list", "--log", broker.url, "--set", f"cluster.key_file={key}")
    key.write_bytes(b"o" * 32)
    status, said = complain("keys", "list", "--log", broker.url, "--set", f"cluster.key_file={key}")
    assert status == ExitCode.UNREACHABLE
    assert "was encrypted under another key" in said


def test_a_policy_is_published_unless_it_is_not_valid(tmp_path: Path, broker: NatsServer, key: Path) -> None:
    options = ("--log", broker.url, "--set", f"cluster.key_file={key}")
    policy = tmp_path / "policy.toml"
    policy.write_text('[principals.user-7]\ntenant = "acme"\n')
    (line,) = ask("policy", "publish", str(policy), *options)
    assert line.startswith(f"published: {policy} (version ")
    assert line.endswith("bucket events-shared")
    policy.write_text("[principals.user-7]\n")
    status, said = complain("policy", "publish", str(policy), *options)
    assert (status, said) == complain("policy", "check", str(policy))
    assert status == ExitCode.VERDICT
    status, said = complain("policy", "publish", str(policy))
    assert status == ExitCode.USAGE
    assert "--log" in said


def test_the_cluster_key_is_replaced_line_by_line(tmp_path: Path, broker: NatsServer, key: Path) -> None:
    options = ("--log", broker.url, "--set", f"cluster.key_file={key}")
    ask("keys", "create", "--principal", "ada", *options)
    old, new = key.read_text(), os.urandom(32).hex() + "\n"
    key.write_text(new)
    status, said = complain("keys", "rotate", *options)
    assert status == ExitCode.UNREACHABLE
    assert "the bucket was encrypted under another key" in said
    key.write_text(new + old)
    for count in (2, 0):
        with running("keys", "rotate", *options) as command:
            assert command.end() == 0, command.err
            (line,) = command.err
            assert line.startswith(f"rotated: {count} entries encrypted anew; keep the other lines")
            assert new.strip() not in line
    key.write_text(new)
    (line,) = ask("keys", "list", "--json", *options)
    assert json.loads(line)["principal"] == "ada"
