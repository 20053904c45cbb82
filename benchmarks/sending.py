"""What a server makes of one event for many, and of many channels: ours, the others, and bare writes."""

from __future__ import annotations

import contextlib
import socket
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from multiprocessing.connection import Connection
from typing import Any

import msgspec

from benchmarks import our_server
from benchmarks.durability import IN_MEMORY, LOGGING_NODE, log_text, logging_node, node_log_text, without_log
from benchmarks.event import DOCUMENT, FIELDS, resource
from benchmarks.machine import LOAD_CORE, MEASURED_CORE, on_core
from benchmarks.peer_builds import CENTRIFUGO, CENTRIFUGO_VERSION, may_build, program_of
from benchmarks.peers import ariadne_server, asgi, centrifugo, strawberry_server
from benchmarks.processes import NodeProcess, Remote, node_process, prepare_node, running
from benchmarks.row import Rounds, Row, Scale, Target, at_least
from benchmarks.sockets import Sockets
from circuit_breaker_sdk.protocol.codec import next_prefix
from circuit_breaker_sdk.protocol.message_assembly import text_frame_header
from circuit_breaker_server import RateSettings

__all__ = ["PATIENT", "centrifugo_figures", "channels", "deliver", "fan_out", "our_server_process"]

_SOCKETS = 100
_PER_WRITE = (1, 10, 100)
_NODE = "graphql-ws on Node"
_LIMIT_OF = {"ours": "limit", IN_MEMORY: "limit, log in memory"}
PATIENT: dict[str, Any] = {
    "ping_seconds": 3600.0,
    "max_connections_per_address": 100_000,
    "rates": RateSettings(connects_per_second=None, subscribes_per_second=None, operations_per_second=None),
}
"""What is raised for the load: it comes from one address, and begins all at once."""
_CENTRIFUGO_SAID = (
    f"{CENTRIFUGO_VERSION}, engine in memory, GOMAXPROCS=1 on the measured core; JSON over WebSocket, "
    "the same payload in `data`; as many events in a batch request of its HTTP API as the row says, "
    f"2 requests under way; settings {msgspec.json.encode(centrifugo.SETTINGS).decode()}"
)
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
        running(our_server.serve, directory, {**PATIENT, **settings}, core=MEASURED_CORE) as server,
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
        found[_NODE] = _node_peer
    return found


@contextlib.contextmanager
def centrifugo_figures(scale: Scale) -> Iterator[tuple[dict[str, tuple[Remote, Sockets]], str]]:
    """Run Centrifugo with a channel for each figure; yield them by name, and what the row says of them.

    Where it cannot run here, there is no figure, and the row says why.
    """
    program = program_of(CENTRIFUGO, allowed=may_build(scale))
    if isinstance(program, str):
        yield {}, program
        return
    with contextlib.ExitStack() as running_:
        port = running_.enter_context(centrifugo.server(program))
        figures = {
            name: running_.enter_context(centrifugo.subscribed(port, channel, _SOCKETS))
            for name, channel in centrifugo.CHANNELS.items()
        }
        yield figures, _CENTRIFUGO_SAID


# Fan-out ------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _subscribed(port: int, document: str, *, resume: bool) -> Iterator[Sockets]:
    with Sockets(port, _SOCKETS, resume=resume) as sockets:
        sockets.subscribe(document)
        yield sockets


def deliver(server: Remote | NodeProcess, sockets: Sockets, events: int, **given: int) -> float:
    """Have so many events published; return deliveries/s."""
    server.tell("publish", events=events, **given)
    rate = events * _SOCKETS / sockets.count(events * _SOCKETS)
    if isinstance(server, Remote):
        server.receive()
    return rate


def _writes(server: Remote, sockets: Sockets, together: int) -> float:
    """Return how many events our server puts into a write, counted."""
    # Two lanes keep the core busy while one waits for the disk; what both have at one time is one commit
    # and one write, so the events of a write are counted, and the limit has as many.
    events = 20 * together
    server.tell("writes", events=events, together=together)
    sockets.count(events * _SOCKETS)
    return float(events * _SOCKETS / server.receive())


def fan_out(scale: Scale) -> Iterator[Row]:
    """Yield the rows of one stream to 100 sockets.

    The log's cost is shown apart: see :func:`benchmarks.durability.without_log`.
    """
    with on_core(LOAD_CORE), contextlib.ExitStack() as running_:
        writer = running_.enter_context(running(_bare_writer, core=MEASURED_CORE))
        bare = running_.enter_context(Sockets(writer.receive(), _SOCKETS, bare=True))
        placed: dict[str, tuple[Remote, Sockets]] = {}
        for name, in_memory in (("ours", False), (IN_MEMORY, True)):
            server = running_.enter_context(our_server_process(log_in_memory=in_memory))
            server.call("make", workflows=1)
            port = server.call("port")
            placed[name] = server, running_.enter_context(_subscribed(port, DOCUMENT, resume=True))
        peers: dict[str, tuple[Any, Sockets]] = {}
        for name, start in _peers().items():
            port, peer = running_.enter_context(start())
            peers[name] = peer, running_.enter_context(_subscribed(port, DOCUMENT, resume=False))
        of_centrifugo, said = running_.enter_context(centrifugo_figures(scale))
        for n in _PER_WRITE:
            events = max(scale.pick(2_000, 200) if n > 1 else scale.pick(400, 60), 2 * n)
            few = max(scale.pick(60, 20), n)
            per_write = {name: _writes(*placed[name], together=n) for name in placed}
            measures: dict[str, Callable[[], float]] = {}
            for name, counted in per_write.items():
                measures[_LIMIT_OF[name]] = partial(
                    _deliver_bare, writer, bare, events, max(1, round(counted))
                )
                measures[name] = partial(deliver, *placed[name], events, together=n)
            for name, (peer, sockets) in peers.items():
                measures[name] = partial(deliver, peer, sockets, few, together=n)
            for name, placed_there in of_centrifugo.items():
                measures[name] = partial(deliver, *placed_there, events, together=n)
            rounds = Rounds(measures, scale.runs)
            title = f"server, fan-out to {_SOCKETS} sockets, {n} event{'s' if n > 1 else ''} per write"
            row = rounds.row(
                title, "deliveries/s", ours="ours", limit=_LIMIT_OF["ours"], peers=[*peers, *of_centrifugo]
            )
            row.detail = {
                "events per write, counted, the limit's as well": round(per_write["ours"], 1),
                "with the log in memory": round(per_write[IN_MEMORY], 1),
                **without_log(
                    rounds,
                    row.unit,
                    per_event=_SOCKETS,
                    limit=_LIMIT_OF[IN_MEMORY],
                    peer=_NODE if _NODE in measures else None,
                ),
                "Centrifugo": said,
            }
            row.settings = {
                "published": "records appended to the durable log in the server's process, and folded",
                **PATIENT,
            }
            targets: dict[str, Target] = {"of the limit": at_least(0.5, row.ratio_to_limit)}
            if "Centrifugo" in row.times:
                targets["times Centrifugo"] = at_least(1.2, row.times["Centrifugo"])
            if n == 10:
                node_times = row.times.get(_NODE)
                targets["times graphql-ws on Node"] = at_least(15, node_times)
                targets["times Strawberry"] = at_least(80, row.times.get("Strawberry"))
            yield row.aim(targets)


def _deliver_bare(writer: Remote, sockets: Sockets, events: int, together: int) -> float:
    events = events // together * together
    writer.tell("write", events=events, together=together)
    return events * _SOCKETS / sockets.count(events * _SOCKETS)


# Channels -----------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _our_channels(count: int, *, log_in_memory: bool) -> Iterator[tuple[Remote, Sockets]]:
    with our_server_process(log_in_memory=log_in_memory) as server:
        workflows = server.call("make", workflows=count)
        each = count // _SOCKETS
        with Sockets(server.call("port"), _SOCKETS, resume=True) as sockets:
            sockets.subscribe_more(_OF_WORKFLOW, lambda n, k: {"w": workflows[n * each + k]}, each)
            yield server, sockets


@contextlib.contextmanager
def _channels_of(port: int, count: int) -> Iterator[Sockets]:
    each = count // _SOCKETS
    with Sockets(port, _SOCKETS) as sockets:
        sockets.subscribe_more(_OF_WORKFLOW_BY_ID, lambda n, k: {"w": f"w{n * each + k}"}, each)
        yield sockets


def channels(scale: Scale) -> Iterator[Row]:
    """Yield the row of many channels with one subscriber each, every event for one of them.

    Like is compared with like twice: Node's server with a log as ours has one, and ours with its log in
    memory beside those that have none.
    """
    count = scale.pick(1_000, 100)
    events, few = scale.pick(40_000, 1_600), scale.pick(4_000, 500)
    # Lanes enough that the core never waits for the disk.
    lanes = {"together": 100, "lanes": 8}
    with on_core(LOAD_CORE), contextlib.ExitStack() as running_:
        server, sockets = running_.enter_context(_our_channels(count, log_in_memory=False))
        logs: dict[str, Any] = {"our log": _our_log(server, sockets, lanes)}
        measures: dict[str, Callable[[], float]] = {
            "ours": partial(_events, server, sockets, events, **lanes)
        }
        server, sockets = running_.enter_context(_our_channels(count, log_in_memory=True))
        measures[IN_MEMORY] = partial(_events, server, sockets, events, **lanes)
        for name, start in _peers().items():
            port, peer = running_.enter_context(start())
            sockets = running_.enter_context(_channels_of(port, count))
            measures[name] = partial(_events, peer, sockets, few, together=100, workflows=count)
        logging = running_.enter_context(logging_node())
        if not isinstance(logging, str):
            peer, said = logging
            sockets = running_.enter_context(_channels_of(said["port"], count))
            measures[LOGGING_NODE] = partial(_events, peer, sockets, events, workflows=count, **lanes)
        rounds = Rounds(measures, scale.runs)
        logs[LOGGING_NODE] = logging if isinstance(logging, str) else node_log_text(*logging)
    title = f"server, {count:,} channels with variables of their own, each event for one"
    peers = [name for name in measures if name not in ("ours", IN_MEMORY)]
    row = rounds.row(title, "events/s", ours="ours", limit=None, peers=peers)
    row.detail = {
        **logs,
        **without_log(rounds, row.unit, per_event=1, peer=_NODE if _NODE in measures else None),
    }
    row.settings = {
        "published": "records appended to the durable log in the server's process, 8 x 100 side by side; "
        "Node's with a log the same",
        **PATIENT,
    }
    yield row.aim({"times Strawberry": at_least(20, row.times.get("Strawberry"))})


def _our_log(server: Remote, sockets: Sockets, lanes: dict[str, int]) -> str:
    """Return the settings of our log, and how many events of so many lanes are in a transaction, counted."""
    events = 4 * lanes["together"] * lanes["lanes"]
    server.tell("groups", events=events, **lanes)
    sockets.count(events)
    groups = server.receive()
    return log_text(server.call("log"), events / groups)


def _events(server: Remote | NodeProcess, sockets: Sockets, events: int, **given: int) -> float:
    """Have so many events published, each for one; return events/s."""
    server.tell("publish", events=events, **given)
    rate = events / sockets.count(events)
    if isinstance(server, Remote):
        server.receive()
    return rate
