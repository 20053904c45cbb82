"""A server, real workflow runs, and every operation subscribed, in one process.

The latency of an event is the time from just before its mutation is sent until its handler is called: the
HTTP request, the rules, the commit to disk, the gateway, the WebSocket and the decoding are all in it.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import msgspec

from circuit_breaker_sdk import Client
from circuit_breaker_sdk.cli.demo.agent_runs import AgentRuns
from circuit_breaker_sdk.cli.demo.completions import Completions
from circuit_breaker_sdk.cli.demo.demo_part import Course, Stage
from circuit_breaker_sdk.cli.demo.judge import Verdict
from circuit_breaker_sdk.cli.demo.ledger import Ledger
from circuit_breaker_sdk.cli.demo.mcp_servers import MCPServers
from circuit_breaker_sdk.cli.demo.performance import Performance
from circuit_breaker_sdk.cli.demo.screen import Screen
from circuit_breaker_sdk.cli.demo.workflow_runs import WorkflowRuns
from circuit_breaker_sdk.cli.exit_codes import ExitCode, exit_code_of
from circuit_breaker_sdk.cli.runtime import print_error
from circuit_breaker_sdk.errors import CircuitBreakerError
from circuit_breaker_server import Server, ServerSettings, ServerStartError

__all__ = ["demo", "result_line"]

_TITLE = "Circuit Breaker: workflows, agents, completions, budgets, MCP servers and sessions"


async def demo(stop: asyncio.Event, *, seconds: float | None, as_json: bool) -> int:
    """Run the demo until the event is set or the time is over, and tell by the status how it went.

    Status 0: every operation received events, and none was lost, duplicated or reordered.

    :param seconds: how long the workflows run; ``None`` until the event is set.
    :param as_json: print the result as one JSON object, the last line of stdout.
    """
    started_at = asyncio.get_running_loop().time()
    try:
        with tempfile.TemporaryDirectory(prefix="circuit-breaker-demo-") as directory:
            # Checked when a course asks for it: what it foretells must not depend on the time.
            settings = ServerSettings(data_dir=Path(directory), port=0, mcp_check_seconds=3600.0)
            async with Server(settings) as server, Client(server.url, trust_env=False) as client:
                ledger = Ledger()
                screen = Screen(ledger, title=_TITLE, started_at=started_at, stdout_is_free=not as_json)
                performance = Performance(client, stop, ledger, screen)
                verdict = await performance.run(_courses, seconds=seconds)
    except (ServerStartError, OSError) as error:
        print_error(error)
        return ExitCode.UNREACHABLE
    except CircuitBreakerError as error:
        print_error(error)
        return exit_code_of(error, live=True)
    if as_json:
        sys.stdout.write(result_line(ledger, verdict) + "\n")
        sys.stdout.flush()
    silent = [name for name, tally in ledger.tallies.items() if not tally.events]
    if silent:
        print_error(f"no events from {', '.join(silent)}: let the demo run longer")
    return ExitCode.OK if verdict.is_clean and not silent else ExitCode.VERDICT


def _courses(stage: Stage) -> Sequence[Course]:
    return MCPServers(stage), WorkflowRuns(stage), AgentRuns(stage), Completions(stage)


def result_line(ledger: Ledger, verdict: Verdict) -> str:
    """Write the result as one JSON object on one line."""
    operations = {}
    for name, tally in ledger.tallies.items():
        latency = tally.latency()
        operations[name] = {
            "events": tally.events,
            "latency_ms": {
                "p50": round(latency.p50_ms, 3) if latency else None,
                "p99": round(latency.p99_ms, 3) if latency else None,
            },
        }
    result = {
        "operations": operations,
        "events": ledger.events,
        "lost": verdict.lost,
        "duplicated": verdict.duplicated,
        "reordered": verdict.reordered,
    }
    return msgspec.json.encode(result).decode()
