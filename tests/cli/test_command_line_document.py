"""docs/command-line.md names commands and options that exist, and every command."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from circuit_breaker_sdk.cli.app import app

TEXT = (Path(__file__).parents[2] / "docs" / "command-line.md").read_text(encoding="utf-8")
OURS = re.sub(r"^\| .* \| .*(--all|--durable|--translate|--graph).*$", "", TEXT, flags=re.MULTILINE)


def commands() -> dict[str, object]:
    group = typer.main.get_command(app)
    found: dict[str, object] = {}
    for name, command in group.commands.items():  # type: ignore[attr-defined]
        found[name] = command
        for inner, part in getattr(command, "commands", {}).items():
            found[f"{name} {inner}"] = part
    return found


def test_every_command_is_named() -> None:
    for name in commands():
        group, _, inner = name.partition(" ")
        assert f"`{group}" in TEXT, name
        if group in ("workflow", "resource", "token"):
            assert f"`{group} {inner}" in TEXT, name


def test_the_options_exist() -> None:
    known = {
        option
        for command in commands().values()
        for parameter in command.params  # type: ignore[attr-defined]
        for option in parameter.opts
    } | {"--help", "--install-completion"}
    named = set(re.findall(r"--[a-z][a-z-]*", OURS))
    assert named <= known, named - known
    assert "--resume" in named


@pytest.mark.parametrize(
    "name", [name for name, each in commands().items() if not getattr(each, "commands", None)]
)
def test_help_of_each_command_has_two_examples(name: str) -> None:
    text = " ".join(CliRunner().invoke(app, [*name.split(), "--help"]).output.split())
    # The usage line is one more.
    assert text.count(f"circuit-breaker {name}") >= 2, text
    assert "docs/" in text, "no link to a page"


@pytest.mark.parametrize(
    "name", [name for name, each in commands().items() if not getattr(each, "commands", None)]
)
def test_the_page_that_the_help_names_has_the_matter(name: str) -> None:
    (page,) = re.findall(
        r"docs/([a-z-]+\.md) tells more", CliRunner().invoke(app, [*name.split(), "--help"]).output
    )
    text = (Path(__file__).parents[2] / "docs" / page).read_text(encoding="utf-8")
    group, _, inner = name.partition(" ")
    assert re.search(rf"\b{group}\b[^\n]*\b{inner}\b", text), (name, page)


def test_completion_can_be_installed() -> None:
    result = CliRunner().invoke(app, ["--help"])
    assert "--install-completion" in result.output
