"""Centrifugo as a server of others: its process, its settings, its subscribers and its publisher."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final

import msgspec

from benchmarks.event import resource
from benchmarks.machine import LOAD_CORE, MEASURED_CORE, on_core
from benchmarks.processes import Remote, running
from benchmarks.sockets import Sockets, frame, read_until, upgrade

__all__ = ["CHANNELS", "SETTINGS", "batch_request", "publish_batches", "server", "subscribed"]

CHANNELS: Final = {"Centrifugo": "events", "Centrifugo, recovery from memory": "kept:events"}
"""The channel of each figure; the second one keeps the history that a client recovers from."""
_ANYBODY: Final = {"allow_subscribe_for_client": True, "allow_subscribe_for_anonymous": True}
SETTINGS: Final[dict[str, Any]] = {
    "log": {"level": "none"},
    "usage_stats": {"disabled": True},
    "http_api": {"insecure": True},
    "client": {
        "allow_anonymous_connect_without_token": True,
        "ping_interval": "-1s",
        "pong_timeout": "-2s",  # Centrifugo wants it below the interval; both are off
        "queue_max_size": 1 << 28,
    },
    "websocket": {"write_timeout": "60s"},
    "channel": {
        "without_namespace": _ANYBODY,
        "namespaces": [
            {
                "name": "kept",
                "history_size": 1000,
                "history_ttl": "300s",
                "force_recovery": True,
                **_ANYBODY,
            }
        ],
    },
}
"""What Centrifugo is set to; everything else, the engine in memory among it, is its default."""
_MARK: Final = b'"push"'
_LANES: Final = 2
_SECONDS_TO_START: Final = 30.0


@contextlib.contextmanager
def server(program: Path) -> Iterator[int]:
    """Run Centrifugo on the measured core; yield its port.

    :raises RuntimeError: it does not start.
    """
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
    with tempfile.TemporaryDirectory(prefix="circuit-breaker-bench-") as directory:
        config = Path(directory) / "config.json"
        config.write_text(json.dumps({**SETTINGS, "http_server": {"address": "127.0.0.1", "port": port}}))
        # The process inherits the core, so that all of its threads have it.
        with on_core(MEASURED_CORE):
            process = subprocess.Popen(
                [program, "--config", config],
                env={**os.environ, "GOMAXPROCS": "1"},
                stdout=subprocess.DEVNULL,
            )
        try:
            _wait_until_it_listens(process, port)
            yield port
        finally:
            process.kill()
            process.wait()


def _wait_until_it_listens(process: subprocess.Popen[bytes], port: int) -> None:
    until = time.monotonic() + _SECONDS_TO_START
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except OSError as error:
            if process.poll() is not None:
                raise RuntimeError(f"Centrifugo has ended with status {process.returncode}") from error
            if time.monotonic() > until:
                raise RuntimeError(f"Centrifugo does not listen after {_SECONDS_TO_START:g} s") from error
            time.sleep(0.05)
        else:
            return


@contextlib.contextmanager
def subscribed(port: int, channel: str, count: int) -> Iterator[tuple[Remote, Sockets]]:
    """Subscribe so many WebSockets to one channel; yield them with the process that publishes to it."""
    # Centrifugo closes a connection that sends no request for 10 seconds: the publisher starts first.
    with contextlib.ExitStack() as started:
        publisher = started.enter_context(running(publish_batches, port, channel, core=LOAD_CORE))
        publisher.receive()
        sockets = started.enter_context(Sockets(port, count, bare=True, mark=_MARK))
        for opened in sockets.opened:
            upgrade(opened, "/connection/websocket")
            opened.sendall(frame('{"id":1,"connect":{}}'))
            read_until(opened, b'"connect":')
            opened.sendall(frame(json.dumps({"id": 2, "subscribe": {"channel": channel}})))
            read_until(opened, b'"subscribe":')
        yield publisher, sockets


def batch_request(channel: str, numbers: Sequence[int]) -> bytes:
    """Return the HTTP request that publishes events, one command each, in one batch."""
    commands = [
        {"publish": {"channel": channel, "data": {"data": {"resourceUpdates": resource(number)}}}}
        for number in numbers
    ]
    body = msgspec.json.encode({"commands": commands})
    return (
        b"POST /api/batch HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
    )


def publish_batches(pipe: Connection, port: int, channel: str) -> None:
    """Publish through the HTTP API what the pipe asks for, until the pipe is closed.

    Two lanes have a request each under way, as with our server; a lane waits for the answer to its last
    request before it sends the next one. They are opened for each command, because Centrifugo closes a
    connection that is idle for 30 seconds.
    """
    pipe.send(("answer", None))
    number = 0
    with contextlib.suppress(EOFError):
        while True:
            _, given = pipe.recv()
            together = given["together"]
            requests = [
                range(first, first + together)
                for first in range(number, number + given["events"] - together + 1, together)
            ]
            number += given["events"]
            _send_all(port, channel, requests)
            pipe.send(("answer", None))


def _send_all(port: int, channel: str, requests: Sequence[Sequence[int]]) -> None:
    """Send a request for each group of event numbers, on two connections in turn."""
    with contextlib.ExitStack() as opened:
        lanes = [
            opened.enter_context(socket.create_connection(("127.0.0.1", port), timeout=60))
            for _ in range(_LANES)
        ]
        for lane in lanes:
            lane.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for position in range(len(requests) + _LANES):
            lane = lanes[position % _LANES]
            if 0 <= position - _LANES < len(requests):
                _read_answer(lane)
            if position < len(requests):
                lane.sendall(batch_request(channel, requests[position]))


def _read_answer(lane: socket.socket) -> None:
    """Read the answer to one request.

    :raises RuntimeError: the server refused the request or a command in it, or closed the connection.
    """
    data = b""
    while b"\r\n\r\n" not in data:
        data += _more(lane)
    head, _, body = data.partition(b"\r\n\r\n")
    status, *headers = head.lower().split(b"\r\n")
    if b" 200 " not in status:
        raise RuntimeError(f"Centrifugo answered {data[:200]!r}")
    if b"transfer-encoding: chunked" in headers:
        while not body.endswith(b"0\r\n\r\n"):
            body += _more(lane)
    else:
        length = next(int(line.partition(b":")[2]) for line in headers if line.startswith(b"content-length:"))
        while len(body) < length:
            body += _more(lane)
    if b'"error"' in body:
        raise RuntimeError(f"Centrifugo refused to publish: {body[:200]!r}")


def _more(lane: socket.socket) -> bytes:
    data = lane.recv(65536)
    if not data:
        raise RuntimeError("Centrifugo closed the connection of the publisher")
    return data
