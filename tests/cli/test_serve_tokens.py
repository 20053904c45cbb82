"""A server from the command line that asks for tokens, and the ways its key can be wrong."""

from __future__ import annotations

import json
import signal
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from tests.cli.process import READY, complain, running
from tests.server.tokens import SECRET, token


def ask(url: str, given: str | None) -> int:
    headers = {"Content-Type": "application/json"}
    if given is not None:
        headers["Authorization"] = f"Bearer {given}"
    asked = urllib.request.Request(url, json.dumps({"query": "{ health }"}).encode(), headers)
    try:
        with urllib.request.urlopen(asked, timeout=30) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def test_with_a_key_file_only_tokens_of_issuer_and_audience_are_let_in(tmp_path: Path) -> None:
    key = tmp_path / "token.key"
    key.write_bytes(SECRET + b"\n")
    options = [
        *("--port", "0", "--data", str(tmp_path / "data"), "--token-key-file", str(key)),
        *("--token-issuer", "us", "--token-audience", "here", "--token-leeway", "600"),
    ]
    with running("serve", *options) as server:
        url = server.wait_for(READY.pattern)
        now = time.time()
        for given, status in (
            (token(iss="us", aud="here", exp=now + 60), 200),
            (token(iss="us", aud="here", exp=now - 60), 200),
            (token(iss="us", aud="here", exp=now - 660), 401),
            (token(iss="us", exp=now + 60), 401),
            (token(aud="here", exp=now + 60), 401),
            (None, 401),
        ):
            assert ask(url, given) == status
        server.signal(signal.SIGINT)
        assert server.end() == 0
        assert SECRET.decode() not in "".join(server.out + server.err)


@pytest.mark.parametrize(
    ("content", "algorithm", "says"),
    [
        (None, "HS256", "No such file"),
        (b"swordfish\n", "HS256", "9 bytes; HS256 needs at least 32"),
        (b"swordfish" * 9, "RS256", "no PEM or JWK of a key for RS256"),
    ],
)
def test_a_key_that_cannot_be_used_is_one_line_with_its_file(
    tmp_path: Path, content: bytes | None, algorithm: str, says: str
) -> None:
    key = tmp_path / "token.key"
    if content is not None:
        key.write_bytes(content)
    options = ("--port", "0", "--data", str(tmp_path / "data"), "--token-algorithm", algorithm)
    status, line = complain("serve", *options, "--token-key-file", str(key))
    assert status not in (0, 2)
    assert says in line
    assert str(key) in line
    assert "swordfish" not in line
    assert not (tmp_path / "data").exists()
