"""A server from the command line that asks nobody who he is says so, and stays on this machine."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests.cli.process import READY, complain, running


@pytest.mark.parametrize("host", ["0.0.0.0", "::", ""])  # noqa: S104 (refused)
def test_another_address_without_authentication_is_wrong_usage_and_says_what_to_do(
    tmp_path: Path, host: str
) -> None:
    data = tmp_path / "data"
    status, line = complain("serve", "--host", host, "--port", "0", "--data", str(data))
    assert status == 2
    assert line.startswith("error: ")
    for told in (host, "--token-key-file", "--api-keys", "--insecure"):
        assert told in line
    assert not data.exists()


@pytest.mark.parametrize(
    ("options", "who"),
    [
        ((), "any local process has full access"),
        (("--host", "0.0.0.0", "--insecure"), "any program that reaches this server has full access"),  # noqa: S104 (told to)
        (("--api-keys",), None),
    ],
)
def test_an_open_server_says_so_in_one_line_before_it_is_ready(
    tmp_path: Path, options: tuple[str, ...], who: str | None
) -> None:
    with running("serve", *options, "--port", "0", "--data", str(tmp_path / "data")) as server:
        server.wait_for(READY.pattern)
        server.signal(signal.SIGINT)
        assert server.end() == 0
        opened = [line for line in server.err if line.startswith("open: ")]
        assert len(opened) == (0 if who is None else 1)
        assert all(str(who) in line for line in opened)
