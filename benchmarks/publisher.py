"""The load: a process of its own with just enough WebSocket to send events as fast as they are read."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import multiprocessing
import os
import socket
from collections.abc import Iterator
from multiprocessing.connection import Connection

import msgspec

from circuit_breaker_sdk.protocol.codec import decode_message, encode_message, next_prefix
from circuit_breaker_sdk.protocol.frames import text_frame_header
from circuit_breaker_sdk.protocol.messages import Complete, ConnectionAck, ConnectionInit, Ping, Subscribe

DOCUMENT = "subscription { resourceUpdates { id workflowId state data createdAt updatedAt } }"
_CYCLE = 1000
_FRAMES_PER_WRITE = 64
_MAGIC = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


def payloads(*, resume: bool) -> list[bytes]:
    """Build a cycle of payloads of about 290 bytes, cursors chained from the last to the first."""

    def cursor(number: int) -> str:
        return f"9f2c41d07be3a856.{100_000 + number % _CYCLE}.0.7d3e9a10"

    cycle = []
    for number in range(_CYCLE):
        payload: dict[str, object] = {
            "data": {
                "resourceUpdates": {
                    "id": f"resource-{number:08d}-3f8a-4a52",
                    "workflowId": "workflow-5b1e77c0-8d6f",
                    "state": "in_review",
                    "data": {"title": "Quarterly plan", "revision": number},
                    "createdAt": "2026-01-15T10:30:00.123Z",
                    "updatedAt": "2026-01-15T10:31:07.456Z",
                }
            }
        }
        if resume:
            links = {"cursor": cursor(number), "prev": cursor(number - 1 + _CYCLE)}
            payload["extensions"] = {"resume": links}
        cycle.append(msgspec.json.encode(payload))
    return cycle


def _read_exactly(peer: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        chunk = peer.recv(size - len(data))
        if not chunk:
            raise ConnectionError("the client is gone")
        data += chunk
    return data


def _read_message(peer: socket.socket) -> bytes:
    """Read one small masked text frame."""
    first, second = _read_exactly(peer, 2)
    size = second & 0x7F
    if size == 126:
        size = int.from_bytes(_read_exactly(peer, 2), "big")
    mask = _read_exactly(peer, 4)
    data = bytes(byte ^ mask[i % 4] for i, byte in enumerate(_read_exactly(peer, size)))
    if first & 0x0F == 8:
        raise ConnectionError("the client has closed")
    return data


def _upgrade(peer: socket.socket) -> None:
    request = b""
    while b"\r\n\r\n" not in request:
        request += peer.recv(4096)
    headers = dict(line.split(b": ", 1) for line in request.split(b"\r\n")[1:] if b": " in line)
    key = next(value for name, value in headers.items() if name.lower() == b"sec-websocket-key")
    accept = base64.b64encode(hashlib.sha1(key + _MAGIC, usedforsecurity=False).digest())
    peer.sendall(
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Protocol: graphql-transport-ws\r\nSec-WebSocket-Accept: " + accept + b"\r\n\r\n"
    )


def _frame(message: bytes) -> bytes:
    return text_frame_header(len(message)) + message


def _serve(peer: socket.socket, events: int) -> None:
    _upgrade(peer)
    init = decode_message(_read_message(peer))
    resume = isinstance(init, ConnectionInit) and "resume" in (init.payload or {})
    answer: dict[str, object] | None = (
        {"resume": {"version": 1, "epoch": "9f2c41d07be3a856"}} if resume else None
    )
    peer.sendall(_frame(encode_message(ConnectionAck(answer))))
    subscribe = decode_message(_read_message(peer))
    if not isinstance(subscribe, Subscribe):
        raise TypeError(f"a subscribe was expected, not {subscribe!r}")
    if resume:
        start = f"9f2c41d07be3a856.{100_000 + _CYCLE - 1}.0.7d3e9a10"
        peer.sendall(_frame(encode_message(Ping({"resume": {"id": subscribe.id, "cursor": start}}))))
        _read_message(peer)  # the pong
    prefix = next_prefix(subscribe.id)
    frames = [_frame(prefix + payload + b"}") for payload in payloads(resume=resume)]
    chunks = [b"".join(frames[i : i + _FRAMES_PER_WRITE]) for i in range(0, _CYCLE, _FRAMES_PER_WRITE)]
    for _ in range(events // _CYCLE):
        for chunk in chunks:
            peer.sendall(chunk)
    peer.sendall(_frame(encode_message(Complete(subscribe.id))))
    with contextlib.suppress(ConnectionError):
        while True:
            _read_message(peer)


def _run(ready: Connection, events: int, core: int | None) -> None:
    if core is not None:
        os.sched_setaffinity(0, {core})
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ready.send(listener.getsockname()[1])
        peer, _ = listener.accept()
        with peer:
            peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            _serve(peer, events)


@contextlib.contextmanager
def publishing(events: int, *, core: int | None) -> Iterator[str]:
    """Run a publisher of ``events`` (a multiple of 1000) for one client; yield its URL."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_run, args=(sender, events, core), daemon=True)
    process.start()
    try:
        yield f"ws://127.0.0.1:{receiver.recv()}/graphql"
    finally:
        process.terminate()
        process.join()
