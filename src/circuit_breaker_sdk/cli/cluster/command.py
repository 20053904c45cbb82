"""Run a cluster, real workflows on it, and what kills its processes; judge what was delivered meanwhile."""

from __future__ import annotations

import asyncio
import sys
import tempfile
from collections.abc import Sequence
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Final

import msgspec

from circuit_breaker_sdk import Client, OfflineQueue
from circuit_breaker_sdk.cli.cluster.chaos import Chaos
from circuit_breaker_sdk.cli.cluster.deliveries import Deliveries
from circuit_breaker_sdk.cli.cluster.keyboard import keys_are_read, on_keys
from circuit_breaker_sdk.cli.cluster.member import Kind, MemberFailedError
from circuit_breaker_sdk.cli.cluster.processes import Cluster, ClusterExtraMissingError, cluster_in
from circuit_breaker_sdk.cli.cluster.view import ClusterView
from circuit_breaker_sdk.cli.demo.demo_part import Course, Stage
from circuit_breaker_sdk.cli.demo.judge import Verdict
from circuit_breaker_sdk.cli.demo.ledger import Ledger, operations_of
from circuit_breaker_sdk.cli.demo.performance import Performance
from circuit_breaker_sdk.cli.demo.screen import Screen
from circuit_breaker_sdk.cli.demo.workflow_runs import WorkflowRuns
from circuit_breaker_sdk.cli.exit_codes import ExitCode, exit_code_of
from circuit_breaker_sdk.cli.runtime import print_error, print_marker, until_stopped
from circuit_breaker_sdk.errors import CircuitBreakerError

__all__ = ["cluster"]

_TITLE: Final = "Circuit Breaker: workflows on three nodes and three brokers, killed one after another"
_KEYS: Final = "n kills a node, b kills a broker, Ctrl-C ends"
_STREAMS: Final = ("resourceUpdates", "workflowEvents")
# An election among the brokers takes seconds, and a mutation may meet several kills in a row.
_PATIENCE_SECONDS: Final = 120.0
_SETTLE_SECONDS: Final = 30.0


async def cluster(stop: asyncio.Event, *, seconds: float | None, every: float, as_json: bool) -> int:
    """Run it until the event is set or the time is over, and tell by the status how it went.

    Status 0: events came, and none was lost, duplicated or reordered.

    :param seconds: how long the workflows run; ``None`` until the event is set.
    :param every: seconds between two kills.
    :param as_json: print the result as one JSON object, the last line of stdout.
    """
    try:
        with tempfile.TemporaryDirectory(prefix="circuit-breaker-cluster-") as directory:
            async with cluster_in(Path(directory)) as made:
                print_marker("starting", "three brokers and three nodes")
                if await until_stopped(stop, _started(made)) is None:
                    return ExitCode.INTERRUPTED
                return await _perform(made, stop, seconds=seconds, every=every, as_json=as_json)
    except ClusterExtraMissingError as error:
        print_error(error)
        return ExitCode.USAGE
    except (MemberFailedError, OSError) as error:
        print_error(error)
        return ExitCode.UNREACHABLE
    except CircuitBreakerError as error:
        print_error(error)
        return exit_code_of(error, live=True)


async def _started(made: Cluster) -> bool:
    await made.start()
    return True


async def _perform(
    made: Cluster, stop: asyncio.Event, *, seconds: float | None, every: float, as_json: bool
) -> int:
    deliveries = Deliveries(made.nodes, made.urls)
    ledger = Ledger(operations_of(_STREAMS))
    ledger.on_event = deliveries.on_event
    view = ClusterView(made, deliveries, certain=ledger.judge.certain, keys=_KEYS if keys_are_read() else "")
    screen = Screen(
        ledger,
        title=_TITLE,
        started_at=asyncio.get_running_loop().time(),
        stdout_is_free=not as_json,
        view=view,
    )
    async with (
        Client(
            made.urls, trust_env=False, offline_queue=OfflineQueue(deadline_seconds=_PATIENCE_SECONDS)
        ) as client,
        AsyncExitStack() as keyboard,
    ):
        client.on_connection_state(deliveries.on_state)

        def courses_on(stage: Stage) -> Sequence[Course]:
            chaos = Chaos(stage, made, every=every, serving=lambda: deliveries.node, tell=screen.tell)
            keys = {"n": partial(chaos.ask, Kind.NODE), "b": partial(chaos.ask, Kind.BROKER)}
            keyboard.enter_context(on_keys(keys))
            return WorkflowRuns(stage), chaos

        performance = Performance(client, stop, ledger, screen, settle_seconds=_SETTLE_SECONDS)
        verdict = await performance.run(courses_on, seconds=seconds)
    if as_json:
        sys.stdout.write(_result_line(ledger, verdict, made, deliveries) + "\n")
        sys.stdout.flush()
    if not ledger.events:
        print_error("no events: let it run longer")
    return ExitCode.OK if verdict.is_clean and ledger.events else ExitCode.VERDICT


def _result_line(ledger: Ledger, verdict: Verdict, made: Cluster, deliveries: Deliveries) -> str:
    """Write the result as one JSON object on one line."""
    result = {
        "events": ledger.events,
        "lost": verdict.lost,
        "doubled": verdict.duplicated,
        "reordered": verdict.reordered,
        "node_kills": sum(each.kills for each in made.nodes),
        "broker_kills": sum(each.kills for each in made.brokers),
        "ended_by_themselves": sum(each.ends for each in made.members),
        "longest_pause_seconds": round(deliveries.longest_pause_seconds, 3),
    }
    return msgspec.json.encode(result).decode()
