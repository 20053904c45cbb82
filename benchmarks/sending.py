"""What a server makes of one event for many, and of many channels: ours, the others, and bare writes."""

from __future__ import annotations

import contextlib
import socket
import tempfile
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from typing import Any

import msgspec

from benchmarks import our_server
from benchmarks.event import DOCUMENT, FIELDS, resource
from benchmarks.machine import LOAD_CORE, MEASURED_CORE, on_core
from benchmarks.peers import ariadne_server, asgi, strawberry_server
from benchmarks.processes import NodeProcess, Remote, node_process, prepare_node, running
from benchmarks.row import Row, Scale, Target, at_least, median
from benchmarks.sockets import Sockets
from circuit_breaker_sdk.protocol.codec import next_prefix
from circuit_breaker_sdk.protocol.frames import text_frame_header

__all__ = ["channels", "fan_out", "our_server_process"]

_SOCKETS = 100
_PER_WRITE = (1, 10, 100)
_PATIENT: dict[str, Any] = {"ping_seconds": 3600.0}
_OF_WORKFLOW = f"subscription($w: String) {{ resourceUpdates(workflowId: $w) {{ {FIELDS} }} }}"
_OF_WORKFLOW_BY_ID = _OF_WORKFLOW.replace("$w: String", "$w: ID")


# What the machine can do --------------------------------------------------------------------------------


def _bare_writer(pipe: Connection) -> None:
    """Write the same bytes to so many sockets, each with an id of its own, so many events in a write."""
    with socket.create_server(("127.0.0.1", 0), backlog=_SOCKETS) as listener:
        pipe.send(("answer", listener.getsockname()[1]))
        peers = [listener.accept()[0] for _ in range(_SOCKETS)]
        for peer in peers:
            peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        prefixes = [next_prefix(f"{number:08x}") for number in range(_SOCKETS)]
        cursors = b'"extensions":{"resume":{"cursor":"%b","prev":"%b"}}' % (
            (b"9f2c41d07be3a856.100000.0.7d3e9a10",) * 2
        )
        payload = msgspec.json.encode({"data": {"resourceUpdates": resource(0)}})[:-1] + b"," + cursors + b"}"
        header = text_frame_header(len(prefixes[0]) + len(payload) + 1)
        with contextlib.suppress(EOFError):
            while True:
                _, given = pipe.recv()
                between = payload + b"}" + header
                pieces = [header, *[between] * (given["together"] - 1), payload + b"}"]
                for _ in range(given["events"] // given["together"]):
                    for peer, prefix in zip(peers, prefixes, strict=True):
                        peer.sendall(prefix.join(pieces))


# The servers --------------------------------------------------------------------------------------------


@contextlib.contextmanager
def our_server_process(**settings: Any) -> Iterator[Remote]:
    """Run our server in a process of its own, on the measured core, with an empty log."""
    with (
        tempfile.TemporaryDirectory(prefix="circuit-breaker-bench-") as directory,
        running(our_server.serve, directory, {**_PATIENT, **settings}, core=MEASURED_CORE) as server,
    ):
        server.receive()
        yield server


@contextlib.contextmanager
def _python_peer(application: Callable[..., Any]) -> Iterator[tuple[int, Remote]]:
    with running(asgi.serve, application, core=MEASURED_CORE) as server:
        server.receive()
        yield server.call("port"), server


@contextlib.contextmanager
def _node_peer() -> Iterator[tuple[int, NodeProcess]]:
    with node_process("server.mjs", core=MEASURED_CORE) as server:
        yield server.receive()["port"], server


def _peers() -> dict[str, Callable[[], Any]]:
    found: dict[str, Callable[[], Any]] = {
        "Strawberry": lambda: _python_peer(strawberry_server.application),
        "Ariadne": lambda: _python_peer(ariadne_server.application),
    }
    if prepare_node():
        found["graphql-ws on Node"] = _node_peer
    return found


# Fan-out ------------------------------------------------------------------------------------------------


def fan_out(scale: Scale) -> Iterator[Row]:
    """Yield the rows of one stream to 100 sockets."""
    events = scale.pick(3_000, 200)
    of_peers = scale.pick(600, 100)
    figures: dict[str, dict[int, float]] = {}
    with on_core(LOAD_CORE):
        with running(_bare_writer, core=MEASURED_CORE) as writer:
            figures["limit"] = _bare(writer, events, scale.runs)
        writes: dict[int, float] = {}
        with our_server_process() as server:
            server.call("make", workflows=1)
            with Sockets(server.call("port"), _SOCKETS, resume=True) as sockets:
                sockets.subscribe(DOCUMENT)
                figures["ours"] = {}
                for n in _PER_WRITE:
                    count = max(events if n > 1 else events // 3, 2 * n)

                    def once(count: int = count, n: int = n) -> float:
                        server.tell("publish", events=count, together=n)
                        deliveries = count // (2 * n) * 2 * n * _SOCKETS
                        rate = deliveries / sockets.count(deliveries)
                        server.receive()
                        return rate

                    figures["ours"][n] = median(once, scale.runs)
                    check = 20 * n
                    server.tell("writes", events=check, together=n)
                    sockets.count(check * _SOCKETS)
                    writes[n] = round(check * _SOCKETS / server.receive(), 1)
        for name, start in _peers().items():
            with start() as (port, peer), Sockets(port, _SOCKETS, resume=False) as sockets:
                sockets.subscribe(DOCUMENT)
                figures[name] = {}
                for n in _PER_WRITE:
                    count = max(of_peers // 3 if n == 1 else of_peers, n)

                    def once_there(
                        count: int = count, n: int = n, peer: Any = peer, sockets: Sockets = sockets
                    ) -> float:
                        peer.tell("publish", events=count, together=n)
                        deliveries = count // n * n * _SOCKETS
                        rate = deliveries / sockets.count(deliveries)
                        if isinstance(peer, Remote):
                            peer.receive()
                        return rate

                    figures[name][n] = median(once_there, scale.long_runs)
    for n in _PER_WRITE:
        row = Row(
            benchmark=f"server, fan-out to {_SOCKETS} sockets, {n} event{'s' if n > 1 else ''} per write",
            unit="deliveries/s",
            ours=round(figures["ours"][n]),
            limit=round(figures["limit"][n]),
            peers={name: round(of[n]) for name, of in figures.items() if name not in ("ours", "limit")},
            detail={"events per write, counted": writes[n]},
            settings={
                "published": "records appended to the durable log in the server's process, and folded",
                **_PATIENT,
            },
        )
        targets: dict[str, Target] = {"ratio to the limit": at_least(0.5, row.ratio_to_limit)}
        if n == 10:
            targets["times graphql-ws on Node"] = at_least(15, row.times("graphql-ws on Node"))
            targets["times Strawberry"] = at_least(80, row.times("Strawberry"))
        yield row.aim(targets)


def _bare(writer: Remote, events: int, runs: int) -> dict[int, float]:
    sockets = Sockets(writer.receive(), _SOCKETS, bare=True)
    with sockets:
        found = {}
        for n in _PER_WRITE:
            count = max(events // n * n, n)

            def once(count: int = count, n: int = n) -> float:
                writer.tell("write", events=count, together=n)
                return count * _SOCKETS / sockets.count(count * _SOCKETS)

            found[n] = median(once, runs)
        return found


# Channels -----------------------------------------------------------------------------------------------


def channels(scale: Scale) -> Iterator[Row]:
    """Yield the row of many channels with one subscriber each, every event for one of them."""
    count = scale.pick(1_000, 100)
    events = scale.pick(40_000, 1_000)
    each = count // _SOCKETS
    figures: dict[str, float] = {}
    with on_core(LOAD_CORE):
        with our_server_process() as server:
            workflows = server.call("make", workflows=count)
            with Sockets(server.call("port"), _SOCKETS, resume=True) as sockets:
                sockets.subscribe_more(_OF_WORKFLOW, lambda n, k: {"w": workflows[n * each + k]}, each)

                def once() -> float:
                    server.tell("publish", events=events, together=100)
                    total = events // 200 * 200
                    rate = total / sockets.count(total)
                    server.receive()
                    return rate

                ours = median(once, scale.runs)
        for name, start in _peers().items():
            with start() as (port, peer), Sockets(port, _SOCKETS, resume=False) as sockets:
                sockets.subscribe_more(_OF_WORKFLOW_BY_ID, lambda n, k: {"w": f"w{n * each + k}"}, each)
                theirs = scale.pick(10_000, 500)

                def once_there(peer: Any = peer, sockets: Sockets = sockets, theirs: int = theirs) -> float:
                    peer.tell("publish", events=theirs, together=100, workflows=count)
                    rate = theirs / sockets.count(theirs)
                    if isinstance(peer, Remote):
                        peer.receive()
                    return rate

                figures[name] = median(once_there, scale.long_runs)
    row = Row(
        benchmark=f"server, {count:,} channels with variables of their own, each event for one",
        unit="events/s",
        ours=round(ours),
        peers={name: round(figure) for name, figure in figures.items()},
        settings={
            "published": "records appended to the durable log in the server's process, 100 in a commit",
            **_PATIENT,
        },
    )
    yield row.aim({"times Strawberry": at_least(20, row.times("Strawberry"))})
