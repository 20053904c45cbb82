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

import msgspec

from benchmarks.concurrency import concurrent, limited
from benchmarks.machine import describe
from benchmarks.memory import memory
from benchmarks.row import Row, Scale, at_least, at_most
from benchmarks.sending import fan_out
from benchmarks.table import target_text
from chaos.herd import herd

__all__ = ["LOADS", "Verdict", "verdicts"]


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


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the table: a target and whether it is met."""

    load: str
    what: str
    target: str
    met: bool


def verdicts(load: str, row: Row) -> list[Verdict]:
    """Return a line for each target of a row; one that has none is a figure and no verdict."""
    return [
        Verdict(load=load, what=f"{row.benchmark}: {row.ours:,g} {row.unit}", target=said, met=target.met)
        for said, target in ((target_text(name, each), each) for name, each in row.targets.items())
    ]


def main() -> int:
    """Measure, print the table; 1 if a target is missed, or something could not be measured."""
    parser = argparse.ArgumentParser(prog="make load", description=__doc__)
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    parser.add_argument("--short", action="store_true", help="less of everything: two minutes")
    parser.add_argument("--only", action="append", choices=sorted(LOADS), help="may be given again")
    options = parser.parse_args()
    scale = Scale(short=options.short)
    if not options.json:
        sys.stdout.write(", ".join(f"{name} {value}" for name, value in describe().items()) + "\n")
    missed = broken = 0
    for name, load in LOADS.items():
        if options.only and name not in options.only:
            continue
        try:
            for row in load(scale):
                for verdict in verdicts(name, row):
                    missed += not verdict.met
                    _print(verdict, as_json=options.json)
        except Exception as error:  # noqa: BLE001 (a load that is broken hides none of the others)
            broken += 1
            sys.stderr.write(f"{name}: {type(error).__name__}: {error}\n")
    if not options.json:
        sys.stdout.write(f"{missed} missed, {broken} not measured\n")
    return int(missed > 0 or broken > 0)


def _print(verdict: Verdict, *, as_json: bool) -> None:
    if as_json:
        line = msgspec.json.encode(verdict).decode()
    else:
        said = "met   " if verdict.met else "MISSED"
        line = f"{said} | {verdict.load:<10} | {verdict.what} | {verdict.target}"
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
