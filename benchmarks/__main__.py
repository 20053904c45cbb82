"""``make bench``: each figure beside the limit of this machine and beside the others, from the same run."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import msgspec

from benchmarks.brokers import brokers
from benchmarks.concurrency import concurrent, limited
from benchmarks.event_streams import event_streams
from benchmarks.latency import latency
from benchmarks.logged import appends, big_log
from benchmarks.machine import describe
from benchmarks.many_resources import many_resources
from benchmarks.memory import memory
from benchmarks.mutating import mutating
from benchmarks.observing import observing
from benchmarks.receiving import receiving
from benchmarks.replay import replay
from benchmarks.row import Row, Scale
from benchmarks.scaling import scaling
from benchmarks.securing import securing
from benchmarks.sending import channels, fan_out
from benchmarks.standing import standing
from benchmarks.table import markdown, summary, text
from benchmarks.workers import workers

__all__ = ["BENCHMARKS"]

BENCHMARKS: Mapping[str, Callable[[Scale], Iterator[Row]]] = {
    "client": receiving,
    "fan-out": fan_out,
    "channels": channels,
    "event-streams": event_streams,
    "latency": latency,
    "concurrent": concurrent,
    "limit": limited,
    "memory": memory,
    "appends": appends,
    "mutations": mutating,
    "workers": workers,
    "brokers": brokers,
    "scaling": scaling,
    "standing": standing,
    "security": securing,
    "observability": observing,
    "replay": replay,
    "big-log": big_log,
    "resources": many_resources,
}

_ROOT = Path(__file__).parents[1]
_PAGE = _ROOT / "docs" / "benchmarks.md"
_README = _ROOT / "README.md"


def main() -> int:
    """Measure and print; 0 whatever was met: a figure is no test. 1 if something could not be measured."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    parser.add_argument(
        "--short", action="store_true", help="see that all of it runs: the figures mean nothing"
    )
    parser.add_argument("--only", action="append", choices=sorted(BENCHMARKS), help="may be given again")
    parser.add_argument(
        "--write", action="store_true", help=f"put the table into {_PAGE.name} and {_README.name}"
    )
    options = parser.parse_args()
    scale = Scale(short=options.short)
    rows: list[Row] = []
    broken = False
    machine = describe()
    if not options.json:
        sys.stdout.write(", ".join(f"{name} {value}" for name, value in machine.items()) + "\n")
    for name, benchmark in BENCHMARKS.items():
        if options.only and name not in options.only:
            continue
        try:
            for row in benchmark(scale):
                rows.append(row)
                sys.stdout.write((msgspec.json.encode(row).decode() if options.json else text(row)) + "\n")
                sys.stdout.flush()
        except Exception as error:  # noqa: BLE001 (a benchmark that is broken hides none of the others)
            broken = True
            sys.stderr.write(f"{name}: {type(error).__name__}: {error}\n")
    if options.write:
        markdown(_PAGE, rows, machine)
        summary(_README, rows, machine)
    return int(broken)


if __name__ == "__main__":
    sys.exit(main())
