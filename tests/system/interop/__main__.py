"""``make interop``: servers and clients by others, cut again and again, and an audit of ours; a line each."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import json
import logging
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import uvloop

from circuit_breaker_sdk import (
    CircuitBreakerPolicy,
    Client,
    Continuity,
    ErrorRecoveryPolicy,
    SubscriptionFailed,
    SubscriptionState,
)
from circuit_breaker_sdk.testing import FaultProxy
from circuit_breaker_server import Server, ServerSettings
from tests.integration.strawberry_server import TickEvent, strawberry_server
from tests.system.interop.cells import Table
from tests.system.interop.clients import run_clients
from tests.system.interop.event_sources import run_event_sources
from tests.system.interop.programs import HERE, Runtime, node
from tests.system.interop.programs import server as run_server
from tests.system.interop.servers import run_servers
from tests.system.interop.toolchains import TOOLCHAINS, build

_DOCUMENT = "subscription($upto: Int!) { ticks(upto: $upto) { number label } }"
_PATIENCE_SECONDS = 30.0


@contextlib.asynccontextmanager
async def graphql_ws_server() -> AsyncIterator[str]:
    """Run graphql-ws on Node."""
    async with run_server(Runtime.NODE, "websocket_server.mjs", "graphql-ws", "0") as port:
        yield f"http://127.0.0.1:{port}/graphql"


async def cut_again_and_again(server: AbstractAsyncContextManager[str], cuts: int) -> dict[str, object]:
    """Cut so often, each time after an event; tell what came back."""
    came_back = 0
    ids: set[str] = set()
    continuities: set[str] = set()
    times: list[float] = []
    async with server as url:
        port = int(url.rpartition(":")[2].partition("/")[0])
        policy = ErrorRecoveryPolicy(base_delay=0.01, max_delay=0.05)
        async with (
            FaultProxy("127.0.0.1", port) as proxy,
            Client(
                f"ws://127.0.0.1:{proxy.port}/graphql",
                recovery=policy,
                # It would open: no connection here lives long enough to prove itself.
                circuit_breaker=CircuitBreakerPolicy(failure_threshold=1_000_000),
            ) as client,
        ):
            ticks = await client.subscribe(_DOCUMENT, {"upto": 100_000_000}, type=TickEvent)
            for _ in range(cuts):
                id_ = ticks.id
                ids.add(id_)
                if (await anext(ticks)).number < 0:
                    raise RuntimeError("ticks count from 0")
                began = time.perf_counter()
                proxy.cut()
                async with asyncio.timeout(_PATIENCE_SECONDS):
                    while ticks.id == id_ or ticks.state is not SubscriptionState.LIVE:
                        await asyncio.sleep(0.001)
                        if ticks.stats().buffered_events > 1_000:
                            await anext(ticks)
                times.append(time.perf_counter() - began)
                came_back += 1
                continuities.add(ticks.continuity.value)
            ids.add(ticks.id)
            await ticks.unsubscribe()
    return {
        "cuts": cuts,
        "came_back": came_back,
        "fresh_ids": len(ids) == cuts + 1,
        "continuity": sorted(continuities),
        "median_ms": round(sorted(times)[len(times) // 2] * 1000, 1),
        "passed": came_back == cuts and len(ids) == cuts + 1 and continuities == {Continuity.UNKNOWN.value},
    }


async def bad_document_beside_a_live_one(server: AbstractAsyncContextManager[str]) -> dict[str, object]:
    """Subscribe with a syntax error beside a subscription that is live; tell what became of both."""
    async with server as url, Client(url) as client:
        ticks = await client.subscribe(_DOCUMENT, {"upto": 100_000_000}, type=TickEvent)
        numbers = [(await anext(ticks)).number]
        broken = await client.subscribe("subscription {", type=TickEvent)
        reason = None
        try:
            async with asyncio.timeout(_PATIENCE_SECONDS):
                await anext(broken)
        except SubscriptionFailed as error:
            reason = str(error)
        async with asyncio.timeout(_PATIENCE_SECONDS):
            while numbers[-1] != 10 or numbers.count(0) < 2:
                numbers.append((await anext(ticks)).number)
        reconnects = client.metrics.reconnection_attempts
        await ticks.unsubscribe()
    # Without cursors the stream begins anew with the connection; in each run no number may be missing.
    missing = sum(now not in {before + 1, 0} for before, now in itertools.pairwise(numbers))
    return {
        "scenario": "a bad document beside a live subscription",
        "reason": reason,
        "missing": missing,
        "reconnects": reconnects,
        "passed": reason is not None and "Syntax Error" in reason and not missing and reconnects <= 3,
    }


async def audit_of_http() -> dict[str, object]:
    """Have graphql-http look at our server; tell what it misses."""
    with tempfile.TemporaryDirectory(prefix="circuit-breaker-interop-") as directory:
        async with Server(ServerSettings(port=0, data_dir=Path(directory))) as server:
            script = str(HERE / "graphql_http_audit.mjs")
            asked = await asyncio.create_subprocess_exec(
                node(), script, server.url, stdout=asyncio.subprocess.PIPE
            )
            async with asyncio.timeout(_PATIENCE_SECONDS):
                printed, _ = await asked.communicate()
    found: dict[str, object] = json.loads(printed)
    return {"scenario": "audit of graphql-http", **found, "passed": found["ok"] == found["audits"] != 0}


SERVERS: dict[str, Callable[[], AbstractAsyncContextManager[str]]] = {
    "Strawberry": strawberry_server,
    "graphql-ws": graphql_ws_server,
}


def _packages() -> list[str]:
    """Return the packages of others that the suite needs."""
    return list(json.loads((HERE / "package.json").read_text())["dependencies"])


_CELLS = (run_clients, run_event_sources, run_servers)


async def in_cells(toolchains: Collection[str]) -> bool:
    """Run the cells, each printed; tell whether none failed."""
    table = Table()
    runtimes = {Runtime.NODE, Runtime.PYTHON, *map(Runtime, toolchains)}
    for run in _CELLS:
        await run(table, runtimes)
    sys.stdout.write(", ".join(f"{count} {outcome}" for outcome, count in table.counts.items()) + "\n")
    return not table.counts["not ok"]


def main() -> int:
    """Run; 0 if all came back each time, and no cell is not ok."""
    parser = argparse.ArgumentParser(prog="make interop", description=__doc__)
    parser.add_argument("--cuts", type=int, default=100)
    parser.add_argument(
        "--without",
        action="append",
        default=[],
        choices=[each.lower() for each in TOOLCHAINS],
        help="leave out the peers of a toolchain, whose build takes minutes; can be given again",
    )
    arguments = parser.parse_args()
    toolchains = build(arguments.without)
    if not all((HERE / "node_modules" / name).exists() for name in _packages()):
        subprocess.run(["npm", "install", "--no-package-lock", "--silent"], cwd=HERE, check=True)  # noqa: S607 (found by PATH, as npm is everywhere)
    logging.disable(logging.ERROR)  # Strawberry logs a traceback for each connection that is cut
    failed = False
    for name, server in SERVERS.items():
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            for found in (
                runner.run(cut_again_and_again(server(), arguments.cuts)),
                runner.run(bad_document_beside_a_live_one(server())),
            ):
                failed |= not found["passed"]
                sys.stdout.write(json.dumps({"server": name, **found}) + "\n")
                sys.stdout.flush()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        audited = runner.run(audit_of_http())
    failed |= not audited["passed"]
    sys.stdout.write(json.dumps({"server": "ours", **audited}) + "\n")
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        failed |= not runner.run(in_cells(toolchains))
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
