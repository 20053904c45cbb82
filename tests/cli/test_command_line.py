"""What the command says before it does anything: help, usage, missing extras."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.cli.process import running


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["serve", "--help"], ["query", "--help"], ["watch", "--help"], ["demo", "--help"]],
)
def test_help_explains_the_exit_status(arguments: list[str]) -> None:
    with running(*arguments) as command:
        assert command.end() == 0
        text = " ".join(" ".join(command.out).split())
        assert "Exit status: 0 done" in text
        assert "130 interrupted" in text
        assert command.err == []


def test_help_lists_the_commands() -> None:
    with running("--help") as command:
        assert command.end() == 0
        assert {"serve", "query", "watch", "demo"} <= set(" ".join(command.out).split())


def test_the_version_is_printed() -> None:
    with running("--version") as command:
        assert command.end() == 0
        assert command.out[0].startswith("circuit-breaker ")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["nonsense"], "No such command 'nonsense'"),
        (["serve", "--port", "70000"], "'--port'"),
        (["serve", "--keep-hours", "0"], "'--keep-hours': 0.0 is not a number greater than 0"),
        (["serve", "--keep-hours", "nan"], "'--keep-hours': nan is not a number greater than 0"),
        (["serve", "--keep-hours", "soon"], "'--keep-hours'"),
        (["serve", "--keep-mib", "-1"], "'--keep-mib': -1 is not a number greater than 0"),
        (["serve", "--keep-mib", "0.5"], "'--keep-mib'"),
        (["serve", "--keep-records", "0"], "'--keep-records': 0 is not a number greater than 0"),
        (["serve", "--token-key-file", "k", "--token-algorithm", "none"], "'--token-algorithm'"),
        (["serve", "--token-key-file", "k", "--token-leeway", "-1"], "'--token-leeway'"),
        (["serve", "--token-key-file", "k", "--token-leeway", "nan"], "leeway"),
        (["serve", "--token-key-file", "k", "--token-issuer", ""], "issuer"),
        (["serve", "--token-issuer", "us"], "--token-key-file"),
        (["serve", "--token-audience", "us"], "--token-key-file"),
        (["serve", "--token-algorithm", "RS256"], "--token-key-file"),
        (["query"], "Missing argument"),
        (["watch"], "Missing argument"),
        (["watch", "elephants"], "no stream is called 'elephants': choose of resource-updates, "),
        (["watch", "resource-updates", "-v", "a=1"], "--variable is of subscriptions"),
        (["watch", "subscription { a }", "--state", "s"], "--state is of streams"),
        (["watch", "@/nowhere/at.all"], "/nowhere/at.all cannot be read"),
        (["watch", "subscription { a }", "-v", "a"], "a variable is given as name=value"),
        (["watch", "workflow-events"], "needs --workflow-id"),
        (["watch", "workflow-events", "--workflow-id", "w", "--state", "s"], "takes --workflow-id only"),
        (["watch", "resource-updates", "--count", "0"], "--count"),
        (["watch", "resource-updates", "--wait", "-1"], "--wait"),
        (["demo", "--seconds", "soon"], "'--seconds'"),
    ],
)
def test_wrong_usage_says_what_is_wrong_with_status_2(arguments: list[str], says: str) -> None:
    with running(*arguments) as command:
        assert command.end() == 2
        assert command.out == []
        assert says in " ".join(command.err)
        assert not any("Traceback" in line for line in command.err)


@pytest.mark.parametrize(
    ("missing", "command", "extra"),
    [
        ("typer", "watch", "cli"),
        ("rich", "watch", "cli"),
        ("uvicorn", "serve", "server"),
        ("graphql", "serve", "server"),
        ("starlette", "demo", "server"),
    ],
)
def test_a_missing_extra_is_named_with_what_to_install(missing: str, command: str, extra: str) -> None:
    stream = ["resource-updates"] if command == "watch" else []
    program = (
        f"import sys; sys.modules[{missing!r}] = None; sys.argv = {['circuit-breaker', command, *stream]!r}; "
        "from circuit_breaker_sdk.cli import main; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr == (
        f"error: this command needs the package {missing!r} of the extra [{extra}]: "
        "pip install 'circuit-breaker-sdk[all]'\n"
    )


def test_watch_needs_no_server_package() -> None:
    program = (
        "import sys; sys.modules['circuit_breaker_server'] = None; import circuit_breaker_sdk.cli.watch; "
        "import circuit_breaker_sdk.cli.app"
    )
    subprocess.run([sys.executable, "-c", program], timeout=30, check=True)
