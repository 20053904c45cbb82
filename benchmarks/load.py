"""``make load``: how much the server holds, at its limits and over them: one table, targets and verdicts.

Concurrent subscriptions and the first one over the limit, memory under load, the recovery of all connections
at once, and throughput: the measurements are those of ``make bench`` and of ``make chaos``, put together.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from benchmarks.concurrency import concurrent, limited
from benchmarks.machine import describe
from benchmarks.memory import memory
from benchmarks.row import Row, Scale, at_least, at_most
from benchmarks.sending import fan_out
from benchmarks.verdicts import judge
from tests.system.chaos.herd import herd

__all__ = ["LOADS"]


def recovery(scale: Scale) -> Iterator[Row]:
    """Yield the row of everyone who comes back at the same moment: the server is killed and started again."""
    with tempfile.TemporaryDirectory(prefix="circuit-breaker-load-") as directory:
        found = asyncio.run(herd(Path(directory), 1, long=not scale.short))
    everyone = scale.pick(10_000, 2_000)
    seconds = found.detail["p95_seconds"]
    row = Row(
        benchmark="recovery of all connections at once after a kill",
        unit="subscriptions",
        ours=everyone,
        detail={"events": found.events, **found.detail},
    )
    yield row.aim(
        {
            "lost, doubled or out of order": at_most(0, found.lost + found.duplicated + found.reordered),
            "95 % are back, seconds": at_most(
                scale.pick(30, 10), seconds if isinstance(seconds, float) else None
            ),
            "all else of the experiment holds": at_least(1, float(not found.failures)),
        }
    )


LOADS: Mapping[str, Callable[[Scale], Iterator[Row]]] = {
    "concurrent": concurrent,
    "limit": limited,
    "memory": memory,
    "recovery": recovery,
    "throughput": fan_out,
}


def main() -> int:
    """Measure, print the table; 1 if a target is missed, or something could not be measured."""
    parser = argparse.ArgumentParser(prog="make load", description=__doc__)
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    parser.add_argument("--short", action="store_true", help="less of everything: two minutes")
    parser.add_argument("--only", action="append", choices=sorted(LOADS), help="may be given again")
    options = parser.parse_args()
    chosen = {name: load for name, load in LOADS.items() if not options.only or name in options.only}
    if not options.json:
        sys.stdout.write(", ".join(f"{name} {value}" for name, value in describe().items()) + "\n")
    return judge(chosen, Scale(short=options.short), as_json=options.json)


if __name__ == "__main__":
    sys.exit(main())
