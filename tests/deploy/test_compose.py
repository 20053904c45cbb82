"""The compose file is YAML, mounts what exists, and publishes nothing beyond this machine.

``docker compose config`` checks it as well, where the plugin is on the machine.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Final

import pytest

from circuit_breaker_server.settings.sources import configure, from_environment
from tests.deploy import dockerfile
from tests.deploy.command_lines import DEPLOY, ROOT, seconds_to_stop
from tests.deploy.yaml_subset import Value, YamlError, read_yaml, texts_of, yaml_of

FILE: Final = DEPLOY / "compose.yml"
PROVISIONING: Final = DEPLOY / "grafana-provisioning"


def mapping(value: Value) -> dict[str, Value]:
    """Return a mapping as such."""
    assert isinstance(value, dict), value
    return value


def mapping_list(value: Value) -> list[dict[str, Value]]:
    """Return a list of mappings as such."""
    assert isinstance(value, list)
    return [mapping(each) for each in value]


COMPOSE: Final = read_yaml(FILE)
SERVICES: Final = {name: mapping(value) for name, value in mapping(COMPOSE["services"]).items()}


def mounts(service: dict[str, Value]) -> dict[str, str]:
    """Return what a service mounts: by the path in the container, the file or the volume."""
    parts = [each.split(":") for each in texts_of(service.get("volumes", []))]
    return {part[1]: part[0] for part in parts}


def mounted_file(service: str, path: str) -> Path:
    """Return the file of the repository that a service has at a path."""
    for target, source in mounts(SERVICES[service]).items():
        if path == target or path.startswith(f"{target}/"):
            return (DEPLOY / source / path[len(target) :].lstrip("/")).resolve()
    raise AssertionError(f"{service} has nothing at {path}")


def environment() -> dict[str, str]:
    """Return the variables of the server: of the image, and of the compose file over them."""
    given = mapping(SERVICES["server"]["environment"])
    assert all(isinstance(value, str) for value in given.values())
    return dockerfile.environment() | {name: str(value) for name, value in given.items()}


def test_there_is_one_server_and_the_file_says_why() -> None:
    assert set(SERVICES) == {"network", "server", "prometheus", "grafana"}
    assert "compose-cluster.yml has" in FILE.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", SERVICES)
def test_what_is_mounted_exists_and_files_are_not_writable(name: str) -> None:
    volumes = mapping(COMPOSE["volumes"])
    for mount in texts_of(SERVICES[name].get("volumes", [])):
        source, _, rest = mount.partition(":")
        if source.startswith("."):
            assert (DEPLOY / source).exists(), source
            assert rest.endswith(":ro"), mount
            assert (DEPLOY / source).resolve().is_relative_to(ROOT)
        else:
            assert source in volumes, source


@pytest.mark.parametrize("name", SERVICES)
def test_ports_are_published_on_loopback_only(name: str) -> None:
    for port in texts_of(SERVICES[name].get("ports", [])):
        assert re.fullmatch(r"127\.0\.0\.1:\d+:\d+", port), port
    assert SERVICES[name].get("network_mode") in (None, "service:network")


@pytest.mark.parametrize("name", SERVICES)
def test_images_are_pinned_and_nothing_is_privileged(name: str) -> None:
    service = SERVICES[name]
    assert re.fullmatch(r"[\w./-]+:v?\d+\.\d+\.\d+", str(service["image"])), service["image"]
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert "privileged" not in service


@pytest.mark.parametrize("name", ["server", "prometheus", "grafana"])
def test_a_service_has_a_health_check(name: str) -> None:
    check = mapping(SERVICES[name]["healthcheck"])
    kind, program, *_ = texts_of(check["test"])
    assert kind == "CMD"
    assert program in ("python", "wget")
    if program == "python":
        compile(texts_of(check["test"])[3], "healthcheck", "exec")


def test_the_server_is_built_here_and_has_the_version_of_the_package() -> None:
    build = mapping(SERVICES["server"]["build"])
    assert (DEPLOY / str(build["context"])).resolve() == ROOT
    assert (ROOT / str(build["dockerfile"])).is_file()
    version = (ROOT / "src" / "circuit_breaker_sdk" / "_version.py").read_text(encoding="utf-8")
    assert f'"{str(SERVICES["server"]["image"]).partition(":")[2]}"' in version


def test_the_server_starts_with_authentication_and_its_data_in_a_volume() -> None:
    settings = configure(from_environment(environment())).settings
    assert settings.exposure() is None
    assert not settings.insecure
    assert settings.data_dir.parent.as_posix() in mounts(SERVICES["server"])
    assert "/tmp" in texts_of(SERVICES["server"]["tmpfs"])  # noqa: S108 (a file of certificates is made there)
    assert settings.policy_file is not None
    assert mounted_file("server", str(settings.policy_file)) == ROOT / "examples" / "policy.toml"


def test_it_waits_longer_than_the_server_takes_to_stop() -> None:
    grace = str(SERVICES["server"]["stop_grace_period"])
    assert float(grace.removesuffix("s")) > seconds_to_stop(environment=environment())


def test_prometheus_shares_the_network_of_the_server_and_scrapes_its_port() -> None:
    assert SERVICES["prometheus"]["network_mode"] == SERVICES["server"]["network_mode"]
    (option,) = [
        each for each in texts_of(SERVICES["prometheus"]["command"]) if each.startswith("--config.file=")
    ]
    configuration = read_yaml(mounted_file("prometheus", option.partition("=")[2]))
    port = configure(from_environment(environment())).settings.metrics_port
    assert f'["127.0.0.1:{port}"]' in (DEPLOY / "prometheus.yml").read_text(encoding="utf-8")
    for rules in texts_of(configuration["rule_files"]):
        assert mounted_file("prometheus", rules) == DEPLOY / "prometheus-alerts.yml"
        read_yaml(mounted_file("prometheus", rules))


def test_grafana_is_given_the_dashboard_and_the_data_source() -> None:
    variables = mapping(SERVICES["grafana"]["environment"])
    home = str(variables["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"])
    assert mounted_file("grafana", home) == DEPLOY / "grafana-dashboard.json"
    (provider,) = mapping_list(read_yaml(PROVISIONING / "dashboards" / "circuit-breaker.yml")["providers"])
    assert mapping(provider["options"])["path"] == Path(home).parent.as_posix()
    (source,) = mapping_list(read_yaml(PROVISIONING / "datasources" / "prometheus.yml")["datasources"])
    assert source["type"] == "prometheus"
    alias = texts_of(mapping(mapping(SERVICES["network"]["networks"])["default"])["aliases"])[0]
    assert source["url"] == f"http://{alias}:9090"


def test_no_password_is_in_the_file() -> None:
    for service in SERVICES.values():
        for name, value in mapping(service.get("environment", {})).items():
            if re.search(r"PASSWORD|SECRET|TOKEN", name):
                assert re.fullmatch(r"\$\{\w+:\?[^}]+\}", str(value)), f"{name} has a default"


@pytest.mark.parametrize(
    "source",
    [
        "a: [1",
        "a: b: c",
        "a:\n\tb: 1",
        "a: 1\na: 2",
        "a: 1\n   b: 2",
        "a: |\n  b",
        'a: "b',
        "- a\n- b",
        "a: &b c",
    ],
)
def test_the_reader_refuses_what_is_no_yaml_or_unknown_to_it(source: str) -> None:
    with pytest.raises(YamlError):
        yaml_of(source)


def test_the_reader_reads_what_the_files_use() -> None:
    source = 'a:\n  - b: "c # d"  # e\n    f: [g, "h, i"]\n  - j\nk: {}\nl: {m: n}\n# o\np: q#r'
    assert yaml_of(source) == {
        "a": [{"b": "c # d", "f": ["g", "h, i"]}, "j"],
        "k": {},
        "l": {"m": "n"},
        "p": "q#r",
    }


def test_docker_compose_accepts_the_file() -> None:
    docker = shutil.which("docker")
    if docker is None:
        pytest.skip("docker is not on this machine; the other tests read the file themselves")
    if subprocess.run(
        [docker, "compose", "version"], capture_output=True, timeout=30, check=False
    ).returncode:
        pytest.skip("docker has no compose on this machine; the other tests read the file themselves")
    done = subprocess.run(
        [docker, "compose", "-f", str(FILE), "config", "--quiet"],
        env=os.environ | {"GRAFANA_ADMIN_PASSWORD": "of a test"},
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert done.returncode == 0, done.stderr
