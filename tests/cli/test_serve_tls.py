"""A server from the command line that speaks TLS, and the ways its files can be wrong."""

from __future__ import annotations

import signal
import urllib.request
from pathlib import Path

from tests.cli.process import READY, complain, running
from tests.server.certificates import Authority


def test_with_a_certificate_it_is_ready_under_https(tmp_path: Path) -> None:
    authority = Authority()
    cert, key = authority.write(tmp_path)
    options = (
        "--port",
        "0",
        "--data",
        str(tmp_path / "data"),
        "--tls-cert",
        str(cert),
        "--tls-key",
        str(key),
    )
    with running("serve", *options) as server:
        url = server.wait_for(READY.pattern)
        assert url.startswith("https://")
        health = url.replace("/graphql", "/health")
        with urllib.request.urlopen(health, timeout=30, context=authority.context()) as answer:
            assert answer.read() == b"ok"
        server.signal(signal.SIGINT)
        assert server.end() == 0


def test_files_that_cannot_be_used_are_one_line(tmp_path: Path) -> None:
    cert, key = Authority().write(tmp_path)
    _, other = Authority().write(tmp_path, "other")
    options = ("serve", "--port", "0", "--data", str(tmp_path / "data"), "--tls-cert", str(cert))
    status, line = complain(*options)
    assert (status, "--tls-key" in line) == (2, True)
    status, line = complain(*options, "--tls-key", str(other))
    assert (status, str(other) in line) == (3, True)
    assert not (tmp_path / "data").exists()
    assert key.exists()
