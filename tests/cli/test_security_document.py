"""What docs/security.md says to type works, and its policy is the one in the examples."""

from __future__ import annotations

import asyncio
import re
import shlex
from pathlib import Path

import pytest
from typer.core import TyperGroup
from typer.main import get_command
from typer.testing import CliRunner

from circuit_breaker_sdk import Client
from circuit_breaker_sdk.cli.app import app
from circuit_breaker_sdk.cli.streams import choose
from circuit_breaker_sdk.cli.watch import watch
from circuit_breaker_server import Server, ServerSettings, TokenSettings
from circuit_breaker_server.security.policy import Policy
from circuit_breaker_server.security.scopes import KINDS
from tests.system.attack.suite import ATTACKS

ROOT = Path(__file__).parents[2]


def block(language: str) -> str:
    text = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
    (found,) = re.findall(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    assert isinstance(found, str)
    return found


async def test_the_secret_and_the_token_of_the_document_are_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for line in block("sh").splitlines():
        CliRunner().invoke(app, shlex.split(line.partition("#")[0])[1:], catch_exceptions=False)
    made = CliRunner().invoke(app, ["token", "make", "--key-file", "token.key", "--subject", "user-7"])
    token = made.stdout.strip()
    tokens = TokenSettings(key=tmp_path / "token.key")
    settings = ServerSettings(port=0, data_dir=tmp_path / "data", token_keys=tokens)
    async with Server(settings) as server:
        async with Client(server.url, token=token) as client:
            assert await client.server_health()
        status = await watch(
            asyncio.Event(),
            choose("mcp-server-status", {}),
            url=server.url,
            token=None,
            count=1,
            wait_seconds=None,
        )
    assert status == 4
    assert re.search(
        r"token missing.*give a token: --token, or CIRCUIT_BREAKER_TOKEN", capfd.readouterr().err
    )


def test_the_policy_of_the_document_is_the_example_and_valid() -> None:
    path = ROOT / "examples" / "policy.toml"
    example = path.read_text(encoding="utf-8")
    assert example.partition("\n\n")[2] == block("toml")
    policy = Policy.load(path)
    assert policy.rights_of("user-7").tenant == "acme"


def test_the_table_of_scopes_has_every_kind_and_no_other() -> None:
    text = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
    _, _, table = text.partition("| kind | its names |")
    rows = table.partition("\n\n")[0].splitlines()[2:]
    kinds = [re.findall(r"^\| `(\w+)`", row)[0] for row in rows]
    assert sorted(set(kinds)) == sorted(KINDS)


def test_the_threat_model_has_every_attack_that_is_made_and_no_other() -> None:
    text = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
    _, _, table = text.partition("| asset | attacks |")
    named = re.findall(r"\*([^*]+)\*", table.partition("\n\n")[0])
    assert sorted(named) == sorted(ATTACKS)


def test_what_to_do_before_opening_a_server_is_ten_lines_of_options_that_exist() -> None:
    text = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
    _, _, after = text.partition("## Before you put it in the open\n\n")
    lines = after.partition("\n\n")[0].splitlines()
    assert [line.partition(".")[0] for line in lines] == [str(n) for n in range(1, 11)]
    group = get_command(app)
    assert isinstance(group, TyperGroup)
    serve = group.commands["serve"]
    options = {option for parameter in serve.params for option in parameter.opts} | {"--principal"}
    assert set(re.findall(r"--[a-z-]+", " ".join(lines))) <= options
