"""Server-sent events beside WebSockets, of the same server in the same run."""

from __future__ import annotations

import contextlib
import statistics
from collections.abc import Iterator
from functools import partial

from benchmarks.event import DOCUMENT
from benchmarks.machine import LOAD_CORE, on_core
from benchmarks.row import Rounds, Row, Scale, at_least, at_most
from benchmarks.sending import PATIENT, our_server_process
from benchmarks.sockets import Sockets

__all__ = ["event_streams"]

_SOCKETS = 100
_PER_WRITE = (1, 10, 100)
_WEBSOCKET = "our WebSockets"
_OF_USER = "subscription($u: String) { costUpdates(userId: $u) { eventType totalCost } }"
_KIB = 1024


def event_streams(scale: Scale) -> Iterator[Row]:
    """Yield the rows of one stream to 100 connections, and of an idle connection."""
    with on_core(LOAD_CORE), contextlib.ExitStack() as running:
        placed = {}
        for name, sse in (("ours", True), (_WEBSOCKET, False)):
            server = running.enter_context(our_server_process())
            server.call("make", workflows=1)
            sockets = running.enter_context(Sockets(server.call("port"), _SOCKETS, resume=True, sse=sse))
            sockets.subscribe(DOCUMENT)
            placed[name] = server, sockets
        for n in _PER_WRITE:
            events = max(scale.pick(2_000, 200) if n > 1 else scale.pick(400, 60), 2 * n)

            def deliver(name: str, events: int, together: int) -> float:
                server, sockets = placed[name]
                server.tell("publish", events=events, together=together)
                rate = events * _SOCKETS / sockets.count(events * _SOCKETS)
                server.receive()
                return rate

            rounds = Rounds({name: partial(deliver, name, events, n) for name in placed}, scale.runs)
            title = f"server-sent events, fan-out to {_SOCKETS}, {n} event{'s' if n > 1 else ''} per write"
            row = rounds.row(title, "deliveries/s", ours="ours", limit=None, peers=[_WEBSOCKET])
            row.settings = {"each": "a connection of its own, with cursors", **PATIENT}
            yield row.aim({f"times {_WEBSOCKET}": at_least(0.8, row.times[_WEBSOCKET])})
    yield _idle(scale)


def _idle(scale: Scale) -> Row:
    """Weigh connections with one subscription to which nothing happens."""
    count = scale.pick(5_000, 300)
    figures = []
    for _ in range(scale.long_runs):
        with our_server_process() as server:
            port = server.call("port")
            with Sockets(port, 10, sse=True) as few:
                few.subscribe(_OF_USER, lambda _: {"u": "u"})
                before = server.call("weigh")
                with Sockets(port, count, sse=True) as many:
                    many.subscribe(_OF_USER, lambda _: {"u": "u"})
                    figures.append((server.call("weigh") - before) / count / _KIB)
    figure = round(statistics.median(figures), 2)
    row = Row(
        benchmark="memory, server, per idle event stream",
        unit="KiB",
        ours=figure,
        detail={"connections": count, "on": "one subscription each, in a channel that all share"},
        settings=PATIENT,
    )
    return row.aim({"KiB": at_most(14, figure)})
