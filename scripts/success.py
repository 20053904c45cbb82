"""``make success``: the measures of success, each with its target, what was measured now, and a verdict.

Nothing is remembered from another run. The status is 0 only if every measure is met.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from circuit_breaker_sdk import BatchSubscriptionManager, CircuitBreakerError, Client
from circuit_breaker_sdk.events import ActivityInput, StateInput, Workflow
from circuit_breaker_server import Server, ServerSettings
from scripts.delivery import EVENTS_PER_STREAM, measure_delivery

ROOT: Final = Path(__file__).resolve().parent.parent
BIN: Final = Path(sys.executable).parent
OPERATIONS: Final = 14
DEMO_SECONDS: Final = 8
SUBSCRIPTIONS: Final = 1_000
OUTAGE_SECONDS: Final = 1.0
WATCHED_SECONDS: Final = 30.0


@dataclass(frozen=True)
class Measure:
    """A measure of success, as measured."""

    name: str
    target: str
    measured: str
    is_met: bool


class Demo:
    """One run of the demo, judged by itself."""

    def __init__(self) -> None:
        command = [str(BIN / "circuit-breaker"), "demo", "--seconds", str(DEMO_SECONDS), "--json"]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)  # noqa: S603 (ours)
        if not done.stdout.strip():
            raise SystemExit(f"the demo did not run: {done.stderr.strip().splitlines()[-1:]}")
        self.result = msgspec.json.decode(done.stdout.splitlines()[-1], type=dict[str, object])
        self.operations = msgspec.convert(self.result["operations"], dict[str, dict[str, object]])

    def served(self) -> Measure:
        events = [name for name, operation in self.operations.items() if operation["events"]]
        clean = not any(self.result[name] for name in ("lost", "duplicated", "reordered"))
        return Measure(
            "operations that deliver events",
            "14 of 14",
            f"{len(events)} of {OPERATIONS}; {'nothing' if clean else 'something'} lost or doubled",
            clean and len(events) == OPERATIONS,
        )


def delivery() -> Measure:
    """Measure each of the fourteen operations under a load of 1,000 events a second."""
    found = measure_delivery()
    slowest = max(found, key=lambda each: each.p99_ms)
    whole = all(each.events == each.expected >= EVENTS_PER_STREAM for each in found)
    fewest = min(each.events for each in found)
    text = (
        f"p99 {slowest.p99_ms:.1f} ms ({slowest.operation}); {len(found)} operations, "
        f"{fewest:,} events or more each, "
        f"{'nothing' if whole else 'something'} lost or doubled"
    )
    is_met = whole and len(found) == OPERATIONS and slowest.p99_ms < 100
    return Measure("delivery, durable record to handler, 1,000 events/s", "< 100 ms", text, is_met)


def type_safety() -> Measure:
    """Ask two type checkers."""
    strict = subprocess.run([str(BIN / "mypy")], cwd=ROOT, capture_output=True, text=True, check=False)  # noqa: S603 (ours)
    complete = subprocess.run(  # noqa: S603 (as above)
        [str(BIN / "basedpyright"), "--verifytypes", "circuit_breaker_sdk", "--ignoreexternal"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}", "VIRTUAL_ENV": str(BIN.parent)},
    )
    found = re.search(r"completeness score: ([\d.]+)%", complete.stdout)
    score = float(found[1]) if found else 0.0
    text = f"{score:g} % of the public API typed; mypy strict: {strict.stdout.strip().splitlines()[-1]}"
    return Measure("type safety", "100 %", text, score == 100 and strict.returncode == 0)


async def make_workflow(client: Client) -> Workflow:
    return await client.workflows.create_workflow(
        name="Measured",
        initial_state="a",
        states=[StateInput(id="a", name="A")],
        activities=[ActivityInput(id="again", from_states=["a"], to_state="a")],
    )


async def recovery(directory: Path) -> list[Measure]:
    """Restart the server under a live subscription, and see for how much of the time events arrive."""
    port = 0
    arrived: list[float] = []
    began = time.monotonic()
    async with Server(ServerSettings(port=0, data_dir=directory)) as server, Client(server.url) as client:
        port = server.port
        workflow = await make_workflow(client)
        updates = await client.workflows.subscribe_resource_updates(workflow_id=workflow.id).subscribe()
        updates.on_update(lambda _: arrived.append(time.monotonic()))
        await client.workflows.create_resource(workflow_id=workflow.id)
        await server.aclose()
        cut = time.monotonic()
        await asyncio.sleep(OUTAGE_SECONDS)
        async with Server(ServerSettings(port=port, data_dir=directory)):
            while time.monotonic() < began + WATCHED_SECONDS and not arrived[1:]:
                with contextlib.suppress(CircuitBreakerError):
                    await client.workflows.create_resource(workflow_id=workflow.id)
                await asyncio.sleep(0.1)
            came_back = len(arrived) > 1
            down = (arrived[1] if came_back else time.monotonic()) - cut
            with contextlib.suppress(CircuitBreakerError):
                await updates.unsubscribe()
    # One restart a day: what the outage of the subscription costs beyond the server's own.
    seconds = 24 * 60 * 60.0
    lost = down - OUTAGE_SECONDS if came_back else seconds
    share = 100 * (1 - lost / seconds)
    return [
        Measure(
            "automatic recovery",
            "every subscription comes back",
            f"1 of 1 after {down - OUTAGE_SECONDS:.2f} s" if came_back else "0 of 1",
            came_back,
        ),
        Measure("uptime with one restart of the server a day", ">= 99.9 %", f"{share:.3f} %", share >= 99.9),
    ]


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


async def many(url: str) -> list[Measure]:
    """Hold many subscriptions at once, in a process of its own, and have one event reach each."""
    async with Client(url) as client:
        workflow = await make_workflow(client)
        (await client.workflows.subscribe_resource_updates(workflow_id=workflow.id).subscribe()).on_update(
            lambda _: None
        )
        before, seen = resident_bytes(), 0
        everyone = asyncio.Event()

        def count(_: object) -> None:
            nonlocal seen
            seen += 1
            if seen == SUBSCRIPTIONS:
                everyone.set()

        batch = BatchSubscriptionManager()
        for _ in range(SUBSCRIPTIONS):
            batch.add_subscription(client.workflows.subscribe_resource_updates(workflow_id=workflow.id))
        await batch.subscribe_all()
        for name in batch.names:
            batch.subscription(name).on_data(count)
        await client.workflows.create_resource(workflow_id=workflow.id)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(30):
                await everyone.wait()
        megabytes = (resident_bytes() - before) / SUBSCRIPTIONS * 100 / 1e6
        await batch.unsubscribe_all()
    return [
        Measure(
            "subscriptions at once on one connection",
            ">= 1,000",
            f"{seen:,} of {SUBSCRIPTIONS:,} received the event",
            seen >= SUBSCRIPTIONS,
        ),
        Measure("memory of 100 subscriptions", "< 10 MB", f"{megabytes:.2f} MB resident", megabytes < 10),
    ]


def intuitive() -> Measure:
    """Count what the README's example needs from an open client to the first event."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    found = re.search(r"```python\n(import asyncio\n.*?)```", text, re.DOTALL)
    body = found[1] if found else ""
    lines = [line for line in body.splitlines() if re.match(r"\s+(async with|async for|print)", line)]
    compile(body, "README.md", "exec")
    return Measure(
        "intuitive API",
        "<= 3 lines from URL to event",
        f"{len(lines)} lines in the README's example",
        0 < len(lines) <= 3,
    )


async def alone(measure: Callable[[Path], Awaitable[list[Measure]]]) -> list[Measure]:
    with tempfile.TemporaryDirectory(prefix="circuit-breaker-success-") as directory:
        return await measure(Path(directory))


async def in_a_server_apart() -> list[Measure]:
    """Measure against a server in another process, so that its memory does not count."""
    with tempfile.TemporaryDirectory(prefix="circuit-breaker-success-") as directory:
        serving = await asyncio.create_subprocess_exec(
            str(BIN / "circuit-breaker"), "serve", "--port", "0", "--data", directory, stdout=subprocess.PIPE
        )
        try:
            if serving.stdout is None:
                raise SystemExit("the server's output cannot be read")
            ready = re.search(r"http://\S+/graphql", (await serving.stdout.readline()).decode())
            if ready is None:
                raise SystemExit("the server did not start")
            return await many(ready[0])
        finally:
            serving.terminate()
            await serving.wait()


def main() -> int:
    demo = Demo()
    measures = [demo.served(), type_safety()]
    measures += asyncio.run(alone(recovery))
    measures.append(delivery())
    measures += asyncio.run(in_a_server_apart())
    measures.append(intuitive())
    widths = [max(len(getattr(m, name)) for m in measures) for name in ("name", "target", "measured")]
    for m in measures:
        verdict = "met" if m.is_met else "NOT MET"
        print(f"{m.name:{widths[0]}}  {m.target:{widths[1]}}  {m.measured:{widths[2]}}  {verdict}")
    print(f"{sum(m.is_met for m in measures)} of {len(measures)} met")
    return 0 if all(m.is_met for m in measures) else 1


if __name__ == "__main__":
    sys.exit(main())
