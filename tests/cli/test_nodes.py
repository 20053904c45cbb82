"""``circuit-breaker nodes``: a table, JSON, and the one line of each server that has none to show."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from circuit_breaker_sdk.cli.exit_codes import ExitCode
from circuit_breaker_server.engine.record_versions import VERSION
from tests.cli.process import READY, complain, running
from tests.conformance.nats_server import NatsServer
from tests.ports import free_ports

HEADS = ["NAME", "TERM", "STATUS", "ADDRESS", "BEHIND", "READS", "RELEASE", "JOINED"]


def ask(*arguments: str) -> tuple[int, list[str], list[str]]:
    with running("nodes", *arguments) as command:
        return command.end(), command.out, command.err


@contextmanager
def answering(status: int, body: bytes) -> Iterator[tuple[str, list[str]]]:
    """Run something that answers each GET so; yields its URL, and the paths that were asked for."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_GET  # noqa: N815 (its name there)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (its name there)
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", asked
        finally:
            server.shutdown()
            thread.join()


def test_the_nodes_of_a_cluster_are_a_table_or_json(tmp_path: Path) -> None:
    with NatsServer(tmp_path / "nats").running() as broker:
        data = str(tmp_path / "a")
        options = ("--port", "0", "--data", data, "--log", broker.url, "--node", "ada")
        with running("serve", *options) as server:
            url = server.wait_for(READY.pattern)
            status, out, err = ask(url)
            assert (status, err) == (0, [])
            assert out[0].split() == HEADS
            row, format_ = (line.split() for line in out[1:])
            assert row[:6] == ["ada", "1", "live", url, "0", str(VERSION)]
            assert format_ == ["format:", str(VERSION)]
            status, out, err = ask("--url", url.replace("http", "ws"), "--json")
            (node,) = json.loads("".join(out))
            assert (status, err) == (0, [f"format: {VERSION}"])
            assert (node["name"], node["term"], node["recordsBehind"]) == ("ada", 1, 0)
            assert node["reads"] == VERSION
            assert node["joinedAt"]
            status, out, err = ask(url, "--raise-format")
            assert (status, err) == (0, [f"unchanged: the log's format is {VERSION}"])
            assert out[0].split() == HEADS


def test_a_server_that_has_its_log_alone_is_one_line(tmp_path: Path) -> None:
    with running("serve", "--port", "0", "--data", str(tmp_path / "data")) as server:
        url = server.wait_for(READY.pattern)
        assert ask(url) == (0, ["this server has its event log alone"], [])
        assert ask(url, "--json") == (0, ["[]"], ["alone: this server has its event log alone"])


def test_without_credentials_the_error_says_what_to_give(tmp_path: Path) -> None:
    key = tmp_path / "token.key"
    key.write_text("k" * 64)
    key.chmod(0o600)
    options = ("--port", "0", "--data", str(tmp_path / "data"), "--token-key-file", str(key))
    with running("serve", *options) as server:
        url = server.wait_for(READY.pattern)
        shown = f"error: {url}: the server shows its nodes to callers with credentials only; "
        assert complain("nodes", url) == (
            ExitCode.UNAUTHENTICATED,
            shown + "give a token: --token, or CIRCUIT_BREAKER_TOKEN",
        )
        status, line = complain("nodes", url, "--token", "a.b.c")
        assert (status, line) == (ExitCode.UNAUTHENTICATED, shown + "it does not take this token")


def test_no_server_is_one_line() -> None:
    (port,) = free_ports(1)
    status, line = complain("nodes", f"http://127.0.0.1:{port}/graphql")
    assert status == ExitCode.UNREACHABLE
    assert line.endswith(
        f"127.0.0.1:{port}/graphql: the connection was refused: is the server running, and is the port right?"
    )


def test_a_port_of_another_protocol_is_one_line(tmp_path: Path) -> None:
    with NatsServer(tmp_path / "nats").running() as broker:
        for port, says in (
            (broker.port, "the answer is not HTTP: is the server running, and is the port right?"),
            (broker.monitoring_port, "is answered with status 404: check the path of the URL"),
        ):
            status, line = complain("nodes", f"http://127.0.0.1:{port}/graphql")
            assert status == ExitCode.UNREACHABLE
            assert line.endswith(says)


@pytest.mark.parametrize("more", [(), ("--raise-format",)])
def test_a_path_without_operations_is_one_line(tmp_path: Path, more: tuple[str, ...]) -> None:
    with running("serve", "--port", "0", "--data", str(tmp_path)) as server:
        url = server.wait_for(READY.pattern)
        status, line = complain("nodes", url.replace("/graphql", "/wrong"), *more)
        assert status == ExitCode.UNREACHABLE
        assert "there is no GraphQL at this path (HTTP 404): check the path of the URL" in line
        for path in ("/graphql/", "/ws", "/", ""):
            assert ask(url.replace("/graphql", path))[0] == 0, path


def test_a_url_that_is_none_is_wrong_usage() -> None:
    status, line = complain("nodes", "ftp://example.com")
    assert status == ExitCode.USAGE
    assert "a URL must start with" in line


@pytest.mark.parametrize(
    ("status", "body", "says"),
    [
        (200, b"ok", "this is no Circuit Breaker server, or an older one"),
        (200, b'{"status":"ready","nodes":[{"name":1}]}', "this is no Circuit Breaker server"),
        (200, b'{"status":"ok"}', "this is no Circuit Breaker server"),
        (404, b"", "is answered with status 404"),
    ],
)
def test_what_answers_otherwise_is_one_line(status: int, body: bytes, says: str) -> None:
    with answering(status, body) as (url, asked):
        code, line = complain("nodes", f"{url}/there/graphql")
        assert code == ExitCode.UNREACHABLE
        assert says in line
        assert asked == ["/there/health"]


def test_texts_of_a_server_cannot_steer_the_terminal() -> None:
    node = {"name": "a\x1b[2J", "term": 2, "status": "gone"}
    with answering(200, json.dumps({"status": "ready", "nodes": [node]}).encode()) as (url, _):
        status, out, err = ask(url)
        assert (status, err) == (0, [])
        assert out[1].split() == ["a", "[2J", "2", "gone", "-", "-", "-", "-", "-"]


def test_a_format_that_all_nodes_read_and_do_not_write_yet_is_told_with_what_to_do() -> None:
    def health(*reads: int) -> bytes:
        nodes = [{"name": "n", "term": 1, "status": "live", "reads": each} for each in reads]
        left = {"name": "c", "term": 1, "status": "left", "reads": 2}
        return json.dumps({"status": "ready", "nodes": [*nodes, left], "logFormat": 2}).encode()

    advice = "2, and all nodes that live read 3: raise it with --raise-format"
    with answering(200, health(3, 4)) as (url, _):
        assert ask(url)[1][-1] == f"format: {advice}"
        assert ask(url, "--json")[2] == [f"format: {advice}"]
    with answering(200, health(3, 2)) as (url, _):
        assert ask(url)[1][-1] == "format: 2"


@pytest.mark.parametrize(
    ("status", "body", "code", "says"),
    [
        (401, b'{"errors":[{"message":"no token"}]}', ExitCode.UNAUTHENTICATED, "no token"),
        (403, b'{"errors":[{"message":"no rights"}]}', ExitCode.REFUSED, "no rights"),
        (409, b'{"errors":[{"message":"a (reads 1)"}]}', ExitCode.REFUSED, "a (reads 1)"),
        (503, b'{"errors":[{"message":"the log is away"}]}', ExitCode.UNREACHABLE, "the log is away"),
        (500, b"Oh", ExitCode.UNREACHABLE, "this is no Circuit Breaker server, or an older one"),
        (400, b'{"errors":[]}', ExitCode.UNREACHABLE, "is answered with status 400"),
    ],
)
def test_a_format_that_is_not_raised_is_one_line(status: int, body: bytes, code: int, says: str) -> None:
    with answering(status, body) as (url, asked):
        found, line = complain("nodes", url, "--raise-format")
        assert found == code
        assert says in line
        assert asked == ["/graphql", "/nodes/format"]
