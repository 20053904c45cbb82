"""The image builds from files that exist, runs without root, and is closed until it gets credentials.

These tests need no Docker daemon, and do not build the image: ``docker build`` is to be run by hand.
"""

from __future__ import annotations

import re
import tomllib
from typing import Final

import pytest

from circuit_breaker_server.settings.sources import configure, from_environment
from tests.deploy.command_lines import DEPLOY, ROOT, print_config, uncommented
from tests.deploy.dockerfile import INSTRUCTIONS, environment, exec_form, final_stage, health_check

KNOWN: Final = {
    "ARG", "CMD", "COPY", "ENTRYPOINT", "ENV", "EXPOSE", "FROM", "HEALTHCHECK", "RUN", "STOPSIGNAL", "USER",
    "VOLUME", "WORKDIR",
}  # fmt: skip
IGNORED: Final = (DEPLOY / "Dockerfile.dockerignore").read_text(encoding="utf-8").splitlines()


def of(name: str) -> list[str]:
    """Return the arguments of each instruction of a kind, in all stages."""
    return [each.arguments for each in INSTRUCTIONS if each.name == name]


def test_every_instruction_is_one() -> None:
    assert {each.name for each in INSTRUCTIONS} <= KNOWN
    assert [each.name for each in INSTRUCTIONS[:2]] == ["ARG", "FROM"]


def test_what_is_copied_exists_and_is_sent_to_the_build() -> None:
    stages = {line.split(" AS ")[1] for line in of("FROM") if " AS " in line}
    sources = []
    for line in of("COPY"):
        *names, _target = line.split()
        if names[0].startswith("--from="):
            assert names[0].removeprefix("--from=") in stages
        else:
            sources += names
    assert {"src", "pyproject.toml"} <= set(sources)
    for source in sources:
        assert (ROOT / source).exists(), source
        assert f"!{source}" in IGNORED, f"{source} is not sent to the build"


def test_the_wheel_can_be_built_from_what_is_copied() -> None:
    copied = {name for line in of("COPY") for name in line.split()[:-1]}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert {project["project"]["readme"], *project["project"]["license-files"]} <= copied
    packages = project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    assert {package.partition("/")[0] for package in packages} <= copied


def test_the_build_gets_only_the_files_that_are_listed() -> None:
    rules = [line for line in IGNORED if line and not line.startswith("#")]
    assert rules[0] == "*"
    assert not any(re.search(r"\.env|key|secret", rule) for rule in rules)


def test_every_extra_exists_and_the_command_has_those_it_needs() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    (line,) = [line for line in of("ARG") if line.startswith("EXTRAS=")]
    extras = set(line.removeprefix("EXTRAS=").split(","))
    assert {"server", "cli", "prometheus"} <= extras <= set(project["project"]["optional-dependencies"])
    assert "${EXTRAS}" in " ".join(of("RUN"))


def test_the_base_image_is_pinned_and_one_of_the_supported_versions() -> None:
    (python,) = [line for line in of("ARG") if line.startswith("PYTHON=")]
    assert re.fullmatch(r"PYTHON=3\.13\.\d+", python)
    assert {line.partition(" AS ")[0] for line in of("FROM")} == {"python:${PYTHON}-slim-trixie"}


def test_the_image_runs_as_a_user_that_is_not_root() -> None:
    stage = final_stage()
    assert stage["USER"] == ["10001:10001"]
    created = " ".join(stage["RUN"])
    assert "--uid 10001" in created
    assert "--gid 10001" in created


def test_a_signal_reaches_the_server() -> None:
    stage = final_stage()
    assert stage["STOPSIGNAL"] == ["SIGTERM"]
    assert exec_form(stage["ENTRYPOINT"][0]) == ["circuit-breaker"]


def test_the_data_are_in_the_volume_and_the_audit_anchor_beside_them_too() -> None:
    (volume,) = final_stage()["VOLUME"]
    data = configure(from_environment(environment())).settings.data_dir
    assert data.parent.as_posix() == volume


def test_the_command_line_is_accepted_with_the_variables_of_the_image() -> None:
    (command,) = final_stage()["CMD"]
    settings = print_config(
        exec_form(command),
        {name: value for name, value in environment().items() if name.startswith("CIRCUIT_BREAKER_")},
    )
    assert settings["network"]["host"] == "0.0.0.0"  # noqa: S104 (inside of a container)
    assert f"{settings['network']['port']}" == final_stage()["EXPOSE"][0]


def test_the_image_refuses_to_start_without_authentication() -> None:
    settings = configure(from_environment(environment())).settings
    assert not settings.insecure
    assert settings.exposure() is not None


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("CIRCUIT_BREAKER_SECURITY_API_KEYS", "true"),
        ("CIRCUIT_BREAKER_SECURITY_TOKEN_KEY_FILE", "/run/secrets/token.key"),
    ],
)
def test_the_variables_that_its_head_names_open_it(variable: str, value: str) -> None:
    assert f"{variable}={value}" in (DEPLOY / "Dockerfile").read_text(encoding="utf-8")
    assert configure(from_environment(environment() | {variable: value})).settings.exposure() is None


def test_no_secret_is_in_the_image() -> None:
    text = uncommented(DEPLOY / "Dockerfile")
    assert not re.search(r"(?i)(secret|password|token|api_?key)\w*\s*=", text)
    assert not re.search(r"(?i)\.(pem|key)\b", text)


def test_the_health_check_is_python_and_compiles() -> None:
    python, option, source = health_check()
    assert (python, option) == ("python", "-c")
    assert "/health/ready" in source
    compile(source, "HEALTHCHECK", "exec")
