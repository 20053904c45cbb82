"""A server, real workflow runs, and every operation subscribed, in one process.

The latency of an event is the time from just before its mutation is sent until its handler is called: the
HTTP request, the rules, the commit to disk, the gateway, the WebSocket and the decoding are all in it.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager, suppress
from pathlib import Path
from typing import final

import msgspec

from circuit_breaker_sdk import Client
from circuit_breaker_sdk.cli.demo.agent_runs import AgentRuns
from circuit_breaker_sdk.cli.demo.completions import Completions
from circuit_breaker_sdk.cli.demo.demo_part import Course, Stage
from circuit_breaker_sdk.cli.demo.judge import Verdict
from circuit_breaker_sdk.cli.demo.ledger import Ledger
from circuit_breaker_sdk.cli.demo.mcp_servers import MCPServers
from circuit_breaker_sdk.cli.demo.screen import Screen
from circuit_breaker_sdk.cli.demo.workflow_runs import WorkflowRuns
from circuit_breaker_sdk.cli.exit_codes import ExitCode, exit_code_of
from circuit_breaker_sdk.cli.runtime import print_error, settle_memory
from circuit_breaker_sdk.errors import CircuitBreakerError
from circuit_breaker_server import Server, ServerSettings, ServerStartError

__all__ = ["demo", "result_line"]

_SETTLE_SECONDS = 5.0
# After the last event that is owed: time for one that is not.
_STRAY_SECONDS = 0.2


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
                performance = _Performance(client, stop, started_at=started_at, stdout_is_free=not as_json)
                ledger, verdict = await performance.run(seconds)
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


@final
class _Performance:
    """The demo from its first subscription to its verdict."""

    def __init__(
        self, client: Client, stop: asyncio.Event, *, started_at: float, stdout_is_free: bool
    ) -> None:
        self._client = client
        self._stop = stop
        self._started_at = started_at
        self._stdout_is_free = stdout_is_free

    async def run(self, seconds: float | None) -> tuple[Ledger, Verdict]:
        ledger = Ledger()
        screen = Screen(
            ledger,
            title="Circuit Breaker: workflows, agents, completions, budgets, MCP servers and sessions",
            started_at=self._started_at,
            stdout_is_free=self._stdout_is_free,
        )
        verdict = None
        async with AsyncExitStack() as subscriptions:
            stage = Stage(self._client, ledger, self._stop, subscriptions)
            courses: tuple[Course, ...] = (
                MCPServers(stage),
                WorkflowRuns(stage),
                AgentRuns(stage),
                Completions(stage),
            )
            # The first request loads what requests need: no latency is to have that in it.
            await self._client.server_health()
            settle_memory()
            for course in courses:
                await course.prepare()
            settle_memory()
            ledger.on_first_event = screen.first_event
            screen.start()
            try:
                with _set_after(seconds, self._stop):
                    await _lead(courses)
                await _settle(ledger)
                if stage.failed is not None:
                    raise stage.failed
                verdict = ledger.judge.verdict()
            finally:
                screen.close(verdict)
        return ledger, verdict


async def _lead(courses: Sequence[Course]) -> None:
    """Lead all courses side by side; raise the first error."""
    try:
        async with asyncio.TaskGroup() as group:
            for course in courses:
                group.create_task(course.lead())
    except* CircuitBreakerError as failed:
        # One line on the terminal: the first says it, the others are its echo.
        first: BaseException = failed
        while isinstance(first, BaseExceptionGroup):
            first = first.exceptions[0]
        raise first from None


@contextmanager
def _set_after(seconds: float | None, event: asyncio.Event) -> Iterator[None]:
    """Set the event after some seconds, unless the block is left before; ``None`` for never."""
    timer = None if seconds is None else asyncio.get_running_loop().call_later(seconds, event.set)
    try:
        yield
    finally:
        if timer is not None:
            timer.cancel()


async def _settle(ledger: Ledger) -> None:
    """Give what is owed time to arrive, then what is not owed a moment to show itself."""
    with suppress(TimeoutError):
        async with asyncio.timeout(_SETTLE_SECONDS):
            await ledger.settled()
    await asyncio.sleep(_STRAY_SECONDS)
