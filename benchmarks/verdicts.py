"""One table of targets: what was measured, what it has to be, and whether it is."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping

import msgspec

from benchmarks.row import Row, Scale
from benchmarks.table import target_text

__all__ = ["Verdict", "judge", "verdicts"]


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


def judge(loads: Mapping[str, Callable[[Scale], Iterator[Row]]], scale: Scale, *, as_json: bool) -> int:
    """Measure each and print its lines as they come; 1 if a target is missed or not measured."""
    missed = broken = 0
    for name, load in loads.items():
        try:
            for row in load(scale):
                for verdict in verdicts(name, row):
                    missed += not verdict.met
                    _print(verdict, as_json=as_json)
        except Exception as error:  # noqa: BLE001 (a load that is broken hides none of the others)
            broken += 1
            sys.stderr.write(f"{name}: {type(error).__name__}: {error}\n")
    if not as_json:
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
