"""``make hot-path``: what one event costs in client and server, beside the committed counts."""

from __future__ import annotations

import argparse
import asyncio
import sys

import msgspec
import uvloop

from tests.hot_path.baseline import FILE, differences, nearest, versions, write
from tests.hot_path.counting import COUNTED, NO_ALLOCATIONS, Counts, Places, count
from tests.hot_path.paths import PATHS, Path

_PLACES_SHOWN = 25


def _counted(path: Path, *, with_places: bool) -> tuple[Counts, Places]:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(count(path, with_places=with_places))


def _say(line: str = "") -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _row(name: str, numbers: list[float | None]) -> str:
    return f"{name:<40}" + "".join(f"{'-' if n is None else format(n, '.2f'):>15}" for n in numbers)


def _show(path: Path, counts: Counts) -> None:
    numbers = [getattr(counts, counted) for counted in COUNTED]
    _say(_row(path.name, numbers))
    if path.deliveries > 1:
        _say(_row("  per delivery", [None if n is None else n / path.deliveries for n in numbers]))


def _show_places(path: Path, places: Places) -> None:
    for kind, found in places.items():
        # To know the place memray profiles, for which the interpreter makes objects of calls of C methods.
        about = ", about: some calls of C methods count as one" if kind == "allocations" else ""
        _say(f"    {kind} per event{about}")
        for place, number in found.most_common(_PLACES_SHOWN):
            _say(f"    {number / path.events:10.2f}  {place}")


def main() -> int:
    """Count, print and compare; 1 if something has grown."""
    parser = argparse.ArgumentParser(prog="make hot-path", description=__doc__)
    parser.add_argument("--only", default="", help="a part of a path's name")
    parser.add_argument("--where", action="store_true", help="show the places, too")
    parser.add_argument("--json", action="store_true", help="the counts as JSON, compared with nothing")
    parser.add_argument("--write", action="store_true", help=f"make these counts the ones in {FILE.name}")
    options = parser.parse_args()
    if options.write and options.only:
        parser.error("--write takes all paths")
    now = {}
    if not options.json:
        _say(_row("per event", []) + "".join(f"{counted:>15}" for counted in COUNTED))
    for path in PATHS:
        if options.only in path.name:
            now[path.name], places = _counted(path, with_places=options.where)
            if not options.json:
                _show(path, now[path.name])
            if options.where:
                _show_places(path, places)
    if options.json:
        _say(msgspec.json.encode(now).decode())
        return 0
    if NO_ALLOCATIONS:
        _say(NO_ALLOCATIONS)
    if options.write:
        write(now)
        _say(f"written to {FILE}")
        return 0
    return _compare(now, all_paths=not options.only)


def _compare(now: dict[str, Counts], *, all_paths: bool) -> int:
    baseline, reason = nearest()
    if reason:
        _say(reason)
    found = [d for d in differences(baseline, now) if all_paths or d.path in now]
    grown = [d for d in found if d.grown]
    _say()
    if not found:
        _say(f"all as in {FILE.name}")
    for difference in found:
        _say(f"{'GROWN ' if difference.grown else 'less  '} {difference}")
    if len(found) > len(grown):
        _say("what is less is kept by: make hot-path ARGS=--write")
    if grown and versions() != baseline.versions:
        _say(f"counted with {versions()}, the baseline with {baseline.versions}")
    return int(bool(grown))


if __name__ == "__main__":
    sys.exit(main())
