"""The compose file of three nodes on three brokers: what it sets exists, and the brokers take their file."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Final

import pytest

from circuit_breaker_server.settings.sources import configure, from_environment
from tests.conformance.nats_server import nats_server_binary
from tests.deploy import dockerfile
from tests.deploy.command_lines import DEPLOY
from tests.deploy.yaml_subset import Value, read_yaml, texts_of

COMPOSE: Final = read_yaml(DEPLOY / "compose-cluster.yml")
NODES: Final = ("node-1", "node-2", "node-3")
BROKERS: Final = ("broker-1", "broker-2", "broker-3")
OF_THE_OPERATOR: Final = {"./cluster.key", "./nats.token"}


def mapping(value: Value) -> dict[str, Value]:
    assert isinstance(value, dict), value
    return value


SERVICES: Final = {name: mapping(value) for name, value in mapping(COMPOSE["services"]).items()}


def test_there_are_three_of_each() -> None:
    assert set(SERVICES) == {*NODES, *BROKERS}


@pytest.mark.parametrize("name", NODES)
def test_a_node_has_settings_that_there_are_and_shares_all_but_its_name(name: str) -> None:
    given = {key: str(value) for key, value in mapping(SERVICES[name]["environment"]).items()}
    settings = configure({}, from_environment(dockerfile.environment() | given), {}, {}).settings
    assert settings.exposure() is None
    cluster = settings.cluster
    assert (cluster.node, cluster.replicas) == (name, 3)
    assert cluster.urls == tuple(f"nats://{broker}:4222" for broker in BROKERS)
    assert (str(cluster.key_file), str(cluster.token_file)) == (
        "/run/secrets/cluster.key",
        "/run/secrets/nats.token",
    )
    assert texts_of(SERVICES[name]["ports"]) == [f"127.0.0.1:400{name[-1]}:4000"]
    first = mapping(SERVICES[NODES[0]]["environment"])
    own = {"CIRCUIT_BREAKER_CLUSTER_NODE", "CIRCUIT_BREAKER_CLUSTER_ADDRESS"}
    assert {key for key in first if first[key] != given[key]} == (set() if name == NODES[0] else own)
    assert "cluster" in str(mapping(mapping(SERVICES[name]["build"])["args"])["EXTRAS"]).split(",")


@pytest.mark.parametrize("name", SERVICES)
def test_what_is_mounted_exists_and_nothing_is_privileged(name: str) -> None:
    volumes = mapping(COMPOSE["volumes"])
    for mount in texts_of(SERVICES[name]["volumes"]):
        source, _, rest = mount.partition(":")
        if source.startswith("."):
            assert source in OF_THE_OPERATOR or (DEPLOY / source).exists(), source
            assert rest.endswith(":ro"), mount
        else:
            assert source in volumes, source
    service = SERVICES[name]
    assert service["read_only"] == "true"
    assert texts_of(service["cap_drop"]) == ["ALL"]
    assert texts_of(service["security_opt"]) == ["no-new-privileges:true"]
    assert "healthcheck" in service


@pytest.mark.parametrize("name", BROKERS)
def test_a_broker_is_published_to_nobody_and_takes_its_file(name: str, tmp_path: Path) -> None:
    assert "ports" not in SERVICES[name]
    text = (DEPLOY / "nats.conf").read_text(encoding="utf-8").replace("/data", str(tmp_path))
    path = tmp_path / "nats.conf"
    path.write_text(text)
    checked = subprocess.run(
        [nats_server_binary(), "-c", path, "--name", name, "-t"],
        env={**os.environ, "NATS_TOKEN": "f" * 64},
        capture_output=True,
        check=False,
    )
    assert checked.returncode == 0, checked.stderr


def test_no_password_is_in_the_files() -> None:
    for name in ("compose-cluster.yml", "nats.conf"):
        for line in (DEPLOY / name).read_text(encoding="utf-8").splitlines():
            if "token" in line.lower() and not line.lstrip().startswith("#"):
                assert "$" in line or ".token" in line, line
