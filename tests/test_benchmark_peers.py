"""The compiled peers of the benchmarks: a build is never a surprise, and a peer that is missing is a line."""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
import threading
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, cast, final

import msgspec
import pytest

from benchmarks import peer_builds, sending
from benchmarks.event import DOCUMENT, resource
from benchmarks.peer_builds import CENTRIFUGO, RUST_CLIENT, Build, may_build, program_of
from benchmarks.peers import centrifugo
from benchmarks.row import Scale
from benchmarks.sockets import Sockets

RUST = Path(peer_builds.__file__).parent / "peers" / "rust-client"
MISSING = "not measured: there is no go on the PATH"
UNBUILT = "not measured: Centrifugo is not built, and only a full run outside CI builds it"


@pytest.fixture
def build(tmp_path: Path) -> Build:
    """Return Centrifugo's build, with a program that is nowhere yet."""
    return msgspec.structs.replace(CENTRIFUGO, program=tmp_path / "centrifugo", directory=tmp_path)


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch, build: Build) -> list[list[str]]:
    """Have the tool found, and a build write the program; return the commands that ran."""
    commands: list[list[str]] = []

    def run(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        commands.append(command)
        build.program.write_text("a program")
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(shutil, "which", lambda tool: f"/tools/{tool}")
    monkeypatch.setattr(subprocess, "run", run)
    return commands


def test_a_missing_tool_is_told_of_in_words(monkeypatch: pytest.MonkeyPatch, build: Build) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: None)
    assert program_of(build, allowed=True) == MISSING


def test_a_peer_is_not_built_where_no_build_is_allowed(build: Build, built: list[list[str]]) -> None:
    assert program_of(build, allowed=False) == UNBUILT
    assert built == []


def test_a_peer_is_built_once_for_each_text_it_is_made_from(build: Build, built: list[list[str]]) -> None:
    assert program_of(build, allowed=True) == build.program
    assert program_of(build, allowed=True) == build.program
    assert built == [["/tools/go", "install", "github.com/centrifugal/centrifugo/v6@v6.9.1"]]
    newer = msgspec.structs.replace(build, sources="v6.9.2")
    assert program_of(newer, allowed=False) == UNBUILT
    assert program_of(newer, allowed=True) == build.program
    assert len(built) == 2


def test_a_peer_built_before_is_measured_where_no_build_is_allowed(
    monkeypatch: pytest.MonkeyPatch, build: Build, built: list[list[str]]
) -> None:
    assert program_of(build, allowed=True) == build.program
    monkeypatch.setattr(shutil, "which", lambda _: None)
    assert program_of(build, allowed=False) == build.program


def test_a_build_that_fails_is_told_of_in_words(monkeypatch: pytest.MonkeyPatch, build: Build) -> None:
    def run(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(command, 1, "", "downloading\nno such host\n")

    monkeypatch.setattr(shutil, "which", lambda tool: f"/tools/{tool}")
    monkeypatch.setattr(subprocess, "run", run)
    assert program_of(build, allowed=True) == "not measured: go cannot build Centrifugo (no such host)"


def test_the_short_form_and_automatic_checks_never_build(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CI", raising=False)
    assert may_build(Scale())
    assert not may_build(Scale(short=True))
    monkeypatch.setenv("CI", "true")
    assert not may_build(Scale())


def test_a_machine_without_centrifugo_has_no_figure_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sending, "program_of", lambda *_, **__: MISSING)
    with sending.centrifugo_figures(Scale(short=True)) as (figures, said):
        assert figures == {}
        assert said == MISSING


def test_the_settings_of_centrifugo_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    @contextmanager
    def server(_program: Path) -> Iterator[int]:
        yield 1

    @contextmanager
    def subscribed(*given: object) -> Iterator[tuple[object, ...]]:
        yield given

    monkeypatch.setattr(sending, "program_of", lambda *_, **__: Path("centrifugo"))
    monkeypatch.setattr(centrifugo, "server", server)
    monkeypatch.setattr(centrifugo, "subscribed", subscribed)
    with sending.centrifugo_figures(Scale(short=True)) as (figures, said):
        assert cast("dict[str, Any]", figures) == {
            "Centrifugo": (1, "events", 100),
            "Centrifugo, recovery from memory": (1, "kept:events", 100),
        }
    assert "v6.9.1, engine in memory, GOMAXPROCS=1" in said
    assert msgspec.json.encode(centrifugo.SETTINGS).decode() in said


def test_a_batch_has_the_payload_of_our_events_once_a_command() -> None:
    head, _, body = centrifugo.batch_request("events", range(7, 9)).partition(b"\r\n\r\n")
    assert head.startswith(b"POST /api/batch HTTP/1.1\r\n")
    assert b"Content-Length: %d" % len(body) in head
    for number in (7, 8):
        assert msgspec.json.encode({"data": {"resourceUpdates": resource(number)}}) in body
    assert [each["publish"]["channel"] for each in json.loads(body)["commands"]] == ["events", "events"]


def answering(listener: socket.socket, answer: bytes, bodies: list[bytes], times: int) -> None:
    """Accept two connections so many times; answer all their requests the same until they are closed."""

    def answer_one(peer: socket.socket) -> None:
        with peer, peer.makefile("rb") as lines:
            while line := lines.readline():
                if line.lower().startswith(b"content-length:"):
                    lines.readline()
                    bodies.append(lines.read(int(line.partition(b":")[2])))
                    peer.sendall(answer)

    for _ in range(times):
        threads = [threading.Thread(target=answer_one, args=(listener.accept()[0],)) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()


@final
class Asking:
    """The publisher's end of a pipe that asks the same some times and is closed then."""

    def __init__(self, events: int, together: int, times: int) -> None:
        self._asked = [("publish", {"events": events, "together": together})] * times
        self.answers: list[object] = []

    def recv(self) -> object:
        if not self._asked:
            raise EOFError
        return self._asked.pop()

    def send(self, answer: object) -> None:
        self.answers.append(answer)


def publish(answer: bytes, events: int, together: int, times: int = 1) -> list[bytes]:
    """Publish to a server that answers so; return the bodies of the requests."""
    bodies: list[bytes] = []
    pipe = Asking(events, together, times)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        serving = threading.Thread(target=answering, args=(listener, answer, bodies, times))
        serving.start()
        try:
            centrifugo.publish_batches(cast("Connection", pipe), listener.getsockname()[1], "events")
        finally:
            serving.join()
    assert pipe.answers == [("answer", None)] * (1 + times)  # it is ready, and all is published
    return bodies


@pytest.mark.parametrize(
    "answer",
    [
        b'HTTP/1.1 200 OK\r\nContent-Length: 14\r\n\r\n{"replies":[]}',
        b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\ne\r\n{"replies":[]}\r\n0\r\n\r\n',
    ],
)
def test_the_publisher_sends_each_event_once_as_many_in_a_request_as_asked(answer: bytes) -> None:
    bodies = publish(answer, events=12, together=4)
    numbers = [
        [each["publish"]["data"]["data"]["resourceUpdates"]["data"]["revision"] for each in commands]
        for commands in (json.loads(body)["commands"] for body in bodies)
    ]
    assert sorted(numbers) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]


def test_the_publisher_opens_its_connections_anew_for_each_command() -> None:
    answer = b'HTTP/1.1 200 OK\r\nContent-Length: 14\r\n\r\n{"replies":[]}'
    bodies = publish(answer, events=4, together=2, times=2)
    assert len(bodies) == 4
    assert len(set(bodies)) == 4


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n", "Centrifugo answered"),
        (b'HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\n{"error":{}}', "refused to publish"),
    ],
)
def test_a_refusal_to_publish_is_an_error_and_no_figure(answer: bytes, said: str) -> None:
    with pytest.raises(RuntimeError, match=said):
        publish(answer, events=4, together=1)


def test_pushes_are_counted_where_a_frame_has_several_and_where_one_is_cut() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with Sockets(port, 1, bare=True, mark=b'"push"') as sockets, listener.accept()[0] as peer:
            peer.sendall(b'\x81\x20{"push":{}}\n{"push":{}}\x81\x0b{"pu')
            sockets.count(2)
            peer.sendall(b'sh":{}}')
            sockets.count(1)
            peer.close()
            with pytest.raises(RuntimeError, match="closed after 0 of 1"):
                sockets.count(1)


def test_the_versions_of_the_rust_client_are_pinned_to_the_default_registry() -> None:
    manifest = tomllib.loads((RUST / "Cargo.toml").read_text())
    wanted = {
        name: each if isinstance(each, str) else each["version"]
        for name, each in manifest["dependencies"].items()
    }
    locked = tomllib.loads((RUST / "Cargo.lock").read_text())["package"]
    versions = {(each["name"], each["version"]) for each in locked}
    for name, version in wanted.items():
        assert re.fullmatch(r"=\d+\.\d+\.\d+", version), name
        assert (name, version[1:]) in versions
    assert {each["source"] for each in locked if each["name"] != "rust-client"} == {
        "registry+https://github.com/rust-lang/crates.io-index"
    }
    assert "--locked" in RUST_CLIENT.arguments


def test_the_rust_client_decodes_the_fields_of_the_benchmarks_document() -> None:
    assert DOCUMENT in (RUST / "src" / "main.rs").read_text()
