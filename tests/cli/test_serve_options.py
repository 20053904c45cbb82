"""Options of ``serve`` reach the settings of the server."""

from __future__ import annotations

from pathlib import Path
from typing import NoReturn

import pytest
from typer.testing import CliRunner

from circuit_breaker_sdk.cli import serve
from circuit_breaker_sdk.cli.app import app
from circuit_breaker_server import ServerSettings, ServerStartError


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[ServerSettings]:
    """Collect the settings of servers, of which none starts."""
    found: list[ServerSettings] = []

    def refuse(settings: ServerSettings) -> NoReturn:
        found.append(settings)
        raise ServerStartError("not in this test")

    class Refusing:
        def __init__(self, settings: ServerSettings) -> None:
            self._settings = settings

        async def start(self) -> None:
            refuse(self._settings)

    monkeypatch.setattr(serve, "Server", Refusing)
    return found


def settings_of(started: list[ServerSettings], data: Path, *options: str) -> ServerSettings:
    result = CliRunner().invoke(app, ["serve", "--data", str(data), *options])
    assert "not in this test" in result.output, result.output
    return started.pop()


def test_options_of_the_audit_log_reach_the_settings(started: list[ServerSettings], tmp_path: Path) -> None:
    settings = settings_of(
        started,
        tmp_path,
        "--audit-rotate-mib=3",
        "--audit-rotate-days=0.5",
        "--audit-keep-files=7",
    )
    assert settings.audit_rotate_bytes == 3 * 1024 * 1024
    assert settings.audit_rotate_seconds == 43_200
    assert settings.audit_keep_files == 7


@pytest.mark.parametrize(("option", "value"), [("--enforce-budgets", True), ("--no-enforce-budgets", False)])
def test_budgets_are_enforced_or_not_as_the_option_says(
    started: list[ServerSettings], tmp_path: Path, option: str, value: bool
) -> None:
    assert settings_of(started, tmp_path, option).enforce_budgets is value


def test_redirects_are_allowed_by_their_option(started: list[ServerSettings], tmp_path: Path) -> None:
    settings = settings_of(
        started, tmp_path, "--allow-redirect=https://a.example/back", "--allow-redirect=https://b.example/"
    )
    assert settings.allowed_redirects == ("https://a.example/back", "https://b.example/")


def test_proxies_are_trusted_by_their_option(started: list[ServerSettings], tmp_path: Path) -> None:
    settings = settings_of(started, tmp_path, "--trusted-proxy=10.0.0.1", "--trusted-proxy=10.1.0.0/16")
    assert settings.trusted_proxies == ("10.0.0.1", "10.1.0.0/16")


def test_the_port_of_metrics_is_set_by_its_option(started: list[ServerSettings], tmp_path: Path) -> None:
    assert settings_of(started, tmp_path, "--metrics-port=9464").metrics_port == 9464
    assert settings_of(started, tmp_path, "--metrics-port=0").metrics_port == 0


def test_without_options_the_settings_have_their_defaults(
    started: list[ServerSettings], tmp_path: Path
) -> None:
    assert settings_of(started, tmp_path) == ServerSettings(data_dir=tmp_path)


@pytest.mark.parametrize("option", ["--audit-rotate-mib", "--audit-rotate-days", "--audit-keep-files"])
def test_an_option_that_is_zero_is_wrong_usage(
    started: list[ServerSettings], tmp_path: Path, option: str
) -> None:
    result = CliRunner().invoke(app, ["serve", "--data", str(tmp_path), option, "0"])
    assert result.exit_code == 2
    assert "greater than 0" in result.output
    assert not started


def test_a_redirect_that_is_no_url_is_wrong_usage(started: list[ServerSettings], tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["serve", "--data", str(tmp_path), "--allow-redirect", "nowhere"])
    assert result.exit_code == 2
    assert "allowed_redirects" in result.output
    assert not started
