"""``make chaos``: every experiment, short or ``--long``; a table, or ``--json``: one object a line."""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import tempfile
import time
from collections.abc import Awaitable, Mapping
from pathlib import Path
from typing import Final, Protocol

import msgspec
import uvloop

from benchmarks.loop_holds import held_in, histogram_in
from tests.system.chaos.blocked_websocket import blocked_websocket
from tests.system.chaos.broker_cut_off import server_cut_off
from tests.system.chaos.broker_deaths import all_brokers_restarted, follower_killed, leader_killed
from tests.system.chaos.changing_network import changing_network
from tests.system.chaos.cores import leave_the_server_alone
from tests.system.chaos.crash_boundaries import crash_boundaries
from tests.system.chaos.cursor_dialects import cursor_dialects
from tests.system.chaos.cut_race import cut_race
from tests.system.chaos.cut_storm import cut_storm, cut_storm_over_polls, cut_storm_over_sse
from tests.system.chaos.disk import disk
from tests.system.chaos.event_logs import LOGS, Log, choose_log
from tests.system.chaos.half_open import half_open
from tests.system.chaos.herd import herd
from tests.system.chaos.late_keys import late_keys
from tests.system.chaos.lifecycle import lifecycle
from tests.system.chaos.log_moved import log_moved
from tests.system.chaos.nodes.mixed_faults import mixed_faults
from tests.system.chaos.nodes.node_changes import clocks_apart, node_added, rolling_restart
from tests.system.chaos.nodes.node_deaths import node_killed, node_killed_as_work_begins
from tests.system.chaos.nodes.node_latency import across_nodes
from tests.system.chaos.nodes.node_silence import brokers_away, node_cut_off, node_paused
from tests.system.chaos.nodes.node_world import choose_nodes
from tests.system.chaos.nodes.own_writes import own_writes
from tests.system.chaos.other_logs import other_logs
from tests.system.chaos.result import LeftOut, Result
from tests.system.chaos.slow_reader import slow_reader
from tests.system.chaos.token_rotation import token_rotation
from tests.system.chaos.worker_deaths import worker_killed
from tests.system.chaos.world import HOLDS

__all__ = ["EXPERIMENTS", "LEFT_OUT", "experiments_on"]


class Experiment(Protocol):
    """An experiment: a fresh directory and a seed in, a result out."""

    def __call__(self, directory: Path, seed: int, *, long: bool) -> Awaitable[Result]: ...


_P99_MS: Final = 10.0
_LONGEST_MS: Final = 25.0
"""How long a server may hold its event loop."""

EXPERIMENTS: Final[Mapping[str, Experiment]] = {
    "cut storm": cut_storm,
    "cut storm, sse": cut_storm_over_sse,
    "cut storm, poll": cut_storm_over_polls,
    "changing network": changing_network,
    "cursor dialects": cursor_dialects,
    "cut race": cut_race,
    "crash boundaries": crash_boundaries,
    "other logs": other_logs,
    "half-open": half_open,
    "slow reader": slow_reader,
    "token rotation": token_rotation,
    "blocked websocket": blocked_websocket,
    "disk": disk,
    "herd": herd,
    "lifecycle": lifecycle,
    "worker killed": worker_killed,
}

ON_BROKERS: Final[Mapping[str, Experiment]] = {
    "broker leader killed": leader_killed,
    "broker follower killed": follower_killed,
    "all brokers restarted": all_brokers_restarted,
    "server cut off from the brokers": server_cut_off,
    "keys after the window": late_keys,
    "log moved": log_moved,
}
"""Those that are about the brokers of an event log on JetStream."""

ON_NODES: Final[Mapping[str, Experiment]] = {
    "node killed": node_killed,
    "node killed as work begins": node_killed_as_work_begins,
    "node paused": node_paused,
    "node cut off from the brokers": node_cut_off,
    "rolling restart": rolling_restart,
    "node added": node_added,
    "clocks apart": clocks_apart,
    "brokers away": brokers_away,
    "across nodes": across_nodes,
    "own writes": own_writes,
    "mixed faults": mixed_faults,
}
"""Those with several servers on one log on JetStream, instead of all others."""

_OF_SQLITE: Final = "about the SQLite file"
_WITHOUT_LOG: Final = "its servers do not have the event log that is chosen here"

LEFT_OUT: Final[Mapping[str, str]] = {
    "cursor dialects": _WITHOUT_LOG,
    "disk": _OF_SQLITE,
    "lifecycle": _WITHOUT_LOG,
    "worker killed": _OF_SQLITE,
}
"""Those that mean nothing with an event log on JetStream, and why."""


def experiments_on(log: Log, *, nodes: int = 1) -> Mapping[str, Experiment]:
    """Return the experiments with an event log, in their order; some of them may be left out."""
    if nodes > 1:
        return ON_NODES
    return EXPERIMENTS if log == "sqlite" else {**EXPERIMENTS, **ON_BROKERS}


async def _run(name: str, experiment: Experiment, seed: int, *, long: bool) -> tuple[Result, float]:
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="circuit-breaker-chaos-") as directory:
        try:
            result = await experiment(Path(directory), seed, long=long)
        except Exception as error:  # noqa: BLE001 (a broken experiment is a failed one; the others go on)
            result = Result(experiment=name, seed=seed, failures=[f"{type(error).__name__}: {error}"])
        _judge_holds(result, Path(directory))
    result.passed = not result.failures
    return result, time.monotonic() - started


def _judge_holds(result: Result, directory: Path) -> None:
    """Say how long the servers of an experiment have held their event loops, in processor time."""
    files = list(directory.rglob(HOLDS))
    if not files:
        return  # its servers are in the process of the experiment
    held = held_in([histogram_in(each) for each in files])
    p99_ms, longest_ms = round(held.p99 * 1000, 1), round(held.longest * 1000, 1)
    result.detail["event loop held, ms"] = {"p99": p99_ms, "longest": longest_ms}
    result.require(p99_ms <= _P99_MS, f"the event loop was held for {p99_ms} ms (p99), over {_P99_MS}")
    result.require(
        longest_ms <= _LONGEST_MS, f"the event loop was held for {longest_ms} ms, over {_LONGEST_MS}"
    )


def _row(number: int, result: Result, seconds: float) -> str:
    recovery = result.recovery_ms
    times = "" if recovery.p50 is None else f"{recovery.p50:g} / {recovery.p99:g}"
    verdict = "passed" if result.passed else "FAILED"
    return (
        f"{number:>2}  {result.experiment:<18} {result.events:>9} {result.lost:>5} {result.duplicated:>5} "
        f"{result.reordered:>5} {result.gaps_signalled:>5}  {times:>16}  {seconds:>6.1f}  {verdict}"
    )


def main() -> int:
    """Run the experiments; 0 if all have passed."""
    parser = argparse.ArgumentParser(prog="make chaos", description=__doc__)
    parser.add_argument("--long", action="store_true", help="the long form, about an hour")
    parser.add_argument("--json", action="store_true", help="one object a line")
    parser.add_argument("--only", action="append", help="an experiment's name; may be given again")
    parser.add_argument("--log", choices=LOGS, default="sqlite", help="where the servers have their events")
    parser.add_argument(
        "--nodes", type=int, default=1, help="so many servers share the log: experiments of their own"
    )
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 30))  # noqa: S311 (chance)
    arguments = parser.parse_args()
    if arguments.nodes > 1 and arguments.log != "jetstream":
        parser.error("several nodes share a log on brokers: add --log jetstream")
    experiments = experiments_on(arguments.log, nodes=arguments.nodes)
    unknown = set(arguments.only or ()) - set(experiments)
    if unknown:
        parser.error(
            f"with --log {arguments.log} no experiment is called {sorted(unknown)[0]!r}: "
            f"choose of {', '.join(experiments)}"
        )
    choose_log(arguments.log)
    choose_nodes(arguments.nodes)
    if arguments.nodes == 1:
        leave_the_server_alone()
    if not arguments.json:
        sys.stdout.write(
            " #  experiment            events  lost   dup  reord  gaps   recovery p50/p99 ms       s\n"
        )
    failures: list[str] = []
    for number, (name, experiment) in enumerate(experiments.items(), start=1):
        if arguments.only and name not in arguments.only:
            continue
        if arguments.log == "jetstream" and (reason := LEFT_OUT.get(name)) is not None:
            out = LeftOut(experiment=name, left_out=reason)
            line = f"{number:>2}  {name:<18} left out: {reason}"
            sys.stdout.write((msgspec.json.encode(out).decode() if arguments.json else line) + "\n")
            continue
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            result, seconds = runner.run(_run(name, experiment, arguments.seed, long=arguments.long))
        failures += [f"{name}: {failure} (seed {result.seed})" for failure in result.failures]
        line = msgspec.json.encode(result).decode() if arguments.json else _row(number, result, seconds)
        sys.stdout.write(line + "\n")
        if not arguments.json:
            for name_, value in result.detail.items():
                sys.stdout.write(f"      {name_}: {msgspec.json.encode(value).decode()}\n")
        sys.stdout.flush()
    # At the end, where a log that was cut still shows them.
    sys.stderr.writelines(f"failed: {failure}\n" for failure in failures)
    return int(bool(failures))


if __name__ == "__main__":
    sys.exit(main())
