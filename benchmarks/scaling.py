"""How the cost of a delivery grows with the number of subscribers: a plot."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.event import DOCUMENT
from benchmarks.latency import percentile
from benchmarks.machine import LOAD_CORE, on_core
from benchmarks.row import Row, Scale
from benchmarks.sending import PATIENT, our_server_process
from benchmarks.sockets import Sockets

__all__ = ["scaling"]

_SUBSCRIBERS = (1, 100, 10_000)
_PLOT = Path(__file__).parents[1] / "docs" / "scaling.png"


def _fan_out(subscribers: int, scale: Scale) -> tuple[float, float]:
    """Return deliveries/s, and microseconds of the server's processor time for each."""
    events = max(20, min(2_000, scale.pick(400_000, 20_000) // subscribers)) // 20 * 20
    rates, costs = [], []
    with our_server_process(ping_seconds=3600.0) as server:
        server.call("make", workflows=1)
        with Sockets(server.call("port"), subscribers, resume=True) as sockets:
            sockets.subscribe(DOCUMENT)
            for run in range(scale.long_runs + 1):
                used = server.call("cpu")
                server.tell("publish", events=events, together=10)
                rate = events * subscribers / sockets.count(events * subscribers)
                server.receive()
                if run:
                    rates.append(rate)
                    costs.append((server.call("cpu") - used) / (events * subscribers) * 1e6)
    return statistics.median(rates), statistics.median(costs)


def _latency(subscribers: int, scale: Scale) -> tuple[float, float]:
    """Return p50 and p99, in ms, of one event in flight at a time to all."""
    taken: list[float] = []
    with our_server_process(ping_seconds=3600.0) as server:
        server.call("make", workflows=1)
        with Sockets(server.call("port"), subscribers, resume=True) as sockets:
            sockets.subscribe(DOCUMENT)
            for _ in range(scale.pick(200, 20)):
                began = time.perf_counter()
                server.tell("publish", events=1, together=1, lanes=1)
                sockets.count(subscribers)
                taken.append(time.perf_counter() - began)
                server.receive()
    return percentile(taken, 0.5) * 1000, percentile(taken, 0.99) * 1000


def scaling(scale: Scale) -> Iterator[Row]:
    """Yield a row for each number of subscribers, and draw the plot."""
    subscribers = _SUBSCRIBERS if not scale.short else (1, 10, 100)
    rates, costs, p50s, p99s = [], [], [], []
    with on_core(LOAD_CORE):
        for count in subscribers:
            rate, cost = _fan_out(count, scale)
            p50, p99 = _latency(count, scale)
            rates.append(rate)
            costs.append(cost)
            p50s.append(p50)
            p99s.append(p99)
            yield Row(
                benchmark=f"scaling, one stream to {count:,} sockets",
                unit="deliveries/s",
                ours=round(rate),
                detail={
                    "server's microseconds per delivery": round(cost, 2),
                    "until the last of them has it, ms p50": round(p50, 2),
                    "p99": round(p99, 2),
                },
                settings={
                    "events per write": 10,
                    "latency": "one event at a time",
                    **PATIENT,
                },
            )
    if not scale.short:
        _draw(subscribers, costs, p50s, p99s)


def _draw(subscribers: tuple[int, ...], costs: list[float], p50s: list[float], p99s: list[float]) -> None:
    import matplotlib as mpl  # noqa: PLC0415 (only who draws needs it)

    mpl.use("Agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415 (as above)

    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4))
    left.plot(subscribers, costs, marker="o", label="server, 10 events per write")
    left.set(
        xscale="log",
        yscale="log",
        xlabel="subscribers",
        ylabel="processor time per delivery, µs",
        title="Fan-out of one stream",
    )
    right.plot(subscribers, p50s, marker="o", label="p50")
    right.plot(subscribers, p99s, marker="o", label="p99")
    right.set(
        xscale="log",
        yscale="log",
        xlabel="subscribers",
        ylabel="ms until the last one has the event",
        title="Latency, one event at a time",
    )
    for axes in (left, right):
        axes.grid(visible=True, which="both", alpha=0.3)
        axes.legend()
    figure.tight_layout()
    figure.savefig(_PLOT, dpi=110, metadata={"Software": None})
