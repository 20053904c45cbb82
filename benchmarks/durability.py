"""The cost of a durable log, shown apart: our server with its log in memory, Node's with one as ours."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Mapping
from typing import Any

from benchmarks.machine import MEASURED_CORE
from benchmarks.processes import NodeProcess, node_process, prepare_node
from benchmarks.row import Rounds

__all__ = ["IN_MEMORY", "LOGGING_NODE", "log_text", "logging_node", "node_log_text", "without_log"]

IN_MEMORY = "ours, log in memory"
"""The name of the figure of our server with a log that is kept in memory alone."""
LOGGING_NODE = "graphql-ws on Node, durable log"
"""The name of the peer that logs each event as we do before a subscriber has it."""


@contextlib.contextmanager
def logging_node() -> Iterator[tuple[NodeProcess, dict[str, Any]] | str]:
    """Run the Node server with a durable log; with it comes what it says of itself: its port, its log.

    Where it cannot run here, the reason comes in its place.
    """
    if not prepare_node():
        yield "not measured: there is no Node with npm on this machine"
        return
    with (
        tempfile.TemporaryDirectory(prefix="circuit-breaker-bench-") as directory,
        node_process("server.mjs", "--log", f"{directory}/events.db", core=MEASURED_CORE) as server,
    ):
        said = server.receive()
        if "unavailable" in said:
            yield (
                f"not measured: this Node cannot load better-sqlite3 ({said['unavailable']}); "
                "to have it installed anew, remove benchmarks/peers/node_modules"
            )
        else:
            yield server, said


def log_text(settings: Mapping[str, str], events_per_transaction: float) -> str:
    """Return the settings of a log, and how many events a transaction has, as one line."""
    said = "".join(f"{name} {value}, " for name, value in settings.items())
    return f"{said}events in a transaction {events_per_transaction:.0f}"


def node_log_text(server: NodeProcess, said: Mapping[str, Any]) -> str:
    """Return the same of the Node server's log, over all that it has published."""
    server.tell("counted")
    counted = server.receive()
    return log_text(said["log"], counted["events"] / counted["transactions"])


def without_log(
    rounds: Rounds, unit: str, *, per_event: int, limit: str | None = None, peer: str | None = None
) -> dict[str, Any]:
    """Return our figure with the log's cost taken out, and what that cost is.

    Not by subtraction of what appends cost alone: SQLite's thread and the event loop share the core, and
    which of them waits for the other is another matter when nothing is sent. The same server has been given
    the same events, in the same rounds, with a log that is kept in memory: no database, no disk, no second
    thread. What is left of the log in that figure is the check of each record and its place in a list. The
    log's cost is the difference of the times per event, the median of the rounds.

    :param per_event: how many of the figure's unit one event makes.
    :param limit: the name of the limit with as many events in a write as the log in memory brings.
    :param peer: the name of another server that keeps its events in memory.
    """
    unit_time = rounds.compare("ours", IN_MEMORY, lambda ours, in_memory: 1 / ours - 1 / in_memory)
    found: dict[str, Any] = {
        f"{unit} with the log's cost taken out (log in memory)": round(rounds.median(IN_MEMORY))
    }
    if limit is not None:
        found["of the limit then"] = round(rounds.ratio(IN_MEMORY, limit), 3)
    if peer is not None:
        found[f"times {peer} then"] = round(rounds.ratio(IN_MEMORY, peer), 2)
    found["the durable log's cost, microseconds per event"] = round(unit_time * per_event * 1e6, 1)
    return found
