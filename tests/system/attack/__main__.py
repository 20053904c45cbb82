"""``make attack``: every attack on a server with everything on, beside victims who must feel nothing.

A line per attack, and a last line. The status is 0 only if all were refused, nothing leaked and nothing
crashed.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import math
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final, final

import msgspec
import uvloop

from circuit_breaker_server.security.audit import AuditPaths, read_key, verify
from tests.system.attack.attacks import SUSTAINED, connect_elsewhere
from tests.system.attack.attempt import Attack, Breach, Scale
from tests.system.attack.audit_log import tamper
from tests.system.attack.outbound import load_clients
from tests.system.attack.owned import RIGHTS
from tests.system.attack.ownership import OWNERSHIP_RIGHTS
from tests.system.attack.quotas import QUOTA_RIGHTS
from tests.system.attack.rights import rights_under_load
from tests.system.attack.suite import ATTACKS, ELSEWHERE
from tests.system.attack.victims import Victims, victims_of
from tests.system.attack.work import WORK_ATTACKS, WORK_RIGHTS, fill
from tests.system.attack.world import ATTACKER, LIMITS, World, opened

__all__ = ["main"]

_MEMORY_BYTES: Final = 64 * 2**20
"""How much more memory than in quiet the server may hold after an attack."""
_NOISE_BYTES: Final = 4 * 2**20
"""How much more an attack may seem to hold that begins beyond the bound."""
_FREEING_SECONDS: Final = 3.0
_HEALTH_SECONDS: Final = 1.0
_LATENCY_TIMES: Final = 1.5
_TIMES: Final = 3


@final
class Line(msgspec.Struct, kw_only=True):
    """What came of one attack.

    :ivar held_p99_ms: processor time of the server's event loop between two looks at its sockets.
    :ivar victims_p99_ms: from a mutation to the handlers of the others meanwhile; ``None``: too short.
    :ivar health_ms: the longest in which ``/health`` was answered meanwhile.
    :ivar memory_mib: of the server afterwards, once what can be is freed.
    """

    attack: str
    outcome: str
    refused: bool
    seconds: float
    victims_p99_ms: float | None
    health_ms: float
    memory_mib: float
    held_p99_ms: float
    held_longest_ms: float


def p99_ms(taken: Sequence[float]) -> float | None:
    """Return the 99th percentile, ``None`` of too few."""
    return round(statistics.quantiles(taken, n=100)[98] * 1000, 2) if len(taken) >= 200 else None


async def _settled_memory(world: World, at_most: float) -> int:
    """Return the server's memory, after a moment for what is being freed where it is more."""
    until = time.monotonic() + _FREEING_SECONDS
    while (weight := world.weigh()) > at_most and time.monotonic() < until:
        await asyncio.sleep(0.1)
    return weight


async def _try(
    world: World, name: str, attack: Attack, scale: Scale, victims: Victims, *, at_most: float
) -> Line:
    victims.take()
    world.holds()
    victims.take_health()
    began = time.monotonic()
    try:
        async with asyncio.timeout(120):
            outcome, refused = await attack(world, scale), True
            # Long enough that one slow event is not the 99th percentile.
            while name in SUSTAINED and time.monotonic() - began < scale.flood_seconds:
                outcome = await attack(world, scale)
    except Breach as breach:
        outcome, refused = str(breach), False
    except Exception as error:  # noqa: BLE001 (an attack that breaks proves nothing)
        outcome, refused = f"the attack broke: {type(error).__name__}: {error}", False
    held_p99, held_longest = world.holds()
    seconds, p99, health = time.monotonic() - began, p99_ms(victims.take()), victims.take_health()
    return Line(
        held_p99_ms=round(held_p99 * 1000, 1),
        held_longest_ms=round(held_longest * 1000, 1),
        attack=name,
        outcome=outcome,
        refused=refused,
        seconds=round(seconds, 2),
        victims_p99_ms=p99,
        health_ms=round(health * 1000, 1),
        memory_mib=round(await _settled_memory(world, at_most) / 2**20, 1),
    )


def _show(line: Line, *, as_json: bool) -> None:
    if as_json:
        text = msgspec.json.encode(line).decode()
    else:
        p99 = "" if line.victims_p99_ms is None else f"victims p99 {line.victims_p99_ms} ms"
        verdict = "refused" if line.refused else "BREACH "
        held = f"loop {line.held_p99_ms:>4.1f}, {line.held_longest_ms:>5.1f} ms"
        felt = f"{p99:<22} {held}  health {line.health_ms:>6.1f} ms  {line.memory_mib:>5.1f} MiB"
        text = f"{line.attack:<40} {verdict}  {line.seconds:>6.2f} s  {felt}  {line.outcome}"
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def _give_way() -> None:
    """Leave the core to the victims whenever they want it: what they feel is then the server's doing."""
    with contextlib.suppress(AttributeError, PermissionError):
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))


async def _quiet(victims: Victims, seconds: float) -> float:
    victims.take()
    await asyncio.sleep(seconds)
    return p99_ms(victims.take()) or 0.0


async def _felt(
    world: World, slow: Sequence[Line], scale: Scale, victims: Victims, measured: tuple[float, float]
) -> list[str]:
    """Make attacks again that victims have felt, each time beside a quiet time; tell which they do feel.

    A stall of the machine's disk is in a percentile of some seconds as well: what counts is the median of
    three.
    """
    quiet, busy = measured
    problems: list[str] = []
    for line in slow:
        attacked, undisturbed = [line.victims_p99_ms or 0.0], [quiet]
        while len(attacked) < _TIMES:
            undisturbed.append(await _quiet(victims, scale.flood_seconds))
            again = await _try(world, line.attack, ATTACKS[line.attack], scale, victims, at_most=math.inf)
            attacked.append(again.victims_p99_ms or 0.0)
            if not again.refused:
                problems.append(f"{line.attack}: {again.outcome}")
        bound = round(_LATENCY_TIMES * max(statistics.median(undisturbed), busy), 2)
        sys.stdout.write(f"{line.attack}: victims p99 {attacked} ms, {undisturbed} ms in quiet before each\n")
        if statistics.median(attacked) > bound:
            problems.append(
                f"{line.attack}: victims' p99 is {statistics.median(attacked)} ms, over {bound} ms"
            )
    return problems


async def _run(directory: Path, arguments: argparse.Namespace) -> tuple[int, int, list[str]]:
    scale = Scale(short=arguments.short)
    people = {
        "victim": ("*", ["workflow:read:*"]),
        "eve": ("other", ["workflow:read:nothing", "nats:read:nothing"]),
        **RIGHTS,
        **OWNERSHIP_RIGHTS,
        **QUOTA_RIGHTS,
        **WORK_RIGHTS,
    }
    problems: list[str] = []
    lines: list[Line] = []
    with opened(directory, people) as world, victims_of(world) as victims:
        _give_way()
        chosen = {n: a for n, a in ATTACKS.items() if not arguments.only or n in arguments.only}
        await load_clients(world)
        if chosen.keys() & WORK_ATTACKS.keys():
            await fill(world, scale)
        await asyncio.sleep(2)
        quiet = await _quiet(victims, 5 if arguments.short else 15)
        await connect_elsewhere(scale.flood_seconds)
        busy = p99_ms(victims.take()) or 0.0
        before = world.weigh()
        bound, held = before + _MEMORY_BYTES, float(before)
        for name, attack in chosen.items():
            # What an earlier attack has left is not this one's.
            allowed = max(bound, held + _NOISE_BYTES)
            line = await _try(world, name, attack, scale, victims, at_most=allowed)
            lines.append(line)
            # In the short form it is shown: the attacks follow each other faster than garbage is collected.
            if line.memory_mib * 2**20 > allowed and not arguments.short:
                problems.append(f"{name}: the server holds {line.memory_mib} MiB, over {allowed / 2**20:.1f}")
            held = max(held, line.memory_mib * 2**20)
            _show(line, as_json=arguments.json)
            if name in SUSTAINED:
                await asyncio.sleep(1.1)  # the attacker's rates are of one second: what comes next is not it
        after = world.weigh()
        worst = max((line.victims_p99_ms or 0.0 for line in lines), default=0.0)
        sys.stdout.write(
            f"victims: p99 {quiet} ms in quiet, {busy} ms while their core is as busy with connections to "
            f"another listener, {worst} ms at worst; server memory {before / 2**20:.0f} MiB, "
            f"then {after / 2**20:.0f}; settings that are not the defaults: {dict(LIMITS)}; from {ATTACKER}\n"
        )
        # Again, at the end: what is seen of a long output is its end.
        problems += [f"{line.attack}: {line.outcome}" for line in lines if not line.refused]
        if not arguments.short:  # there the percentiles are of a few hundred events: shown, and not judged
            judged = [line for line in lines if line.attack not in ELSEWHERE]
            slow = [line for line in judged if (line.victims_p99_ms or 0) > _LATENCY_TIMES * max(quiet, busy)]
            problems += await _felt(world, slow, scale, victims, (quiet, busy))
        problems += [
            f"{line.attack}: /health was answered after {line.health_ms} ms"
            for line in lines
            if line.health_ms > _HEALTH_SECONDS * 1000 and line.attack not in ELSEWHERE
        ]
        async with world.http("127.0.0.1") as http:
            if await world.ask(http, "boss", "{ health }") != {"data": {"health": "ok"}}:
                problems.append("the server does not answer any more")
        problems += [f"a victim felt it: {error}" for error in victims.errors()]
    paths = AuditPaths.of(directory / "data")
    found = verify(paths.log, read_key(paths.key), paths.anchor)
    sys.stdout.write(f"audit log: {found.records} records, {'whole' if found.whole else found.findings}\n")
    if not found.whole:
        problems.append("the audit log does not verify")
    tampered, unnoticed = tamper(directory / "data", arguments.seed)
    sys.stdout.write(f"audit log tampered with {tampered} times: {tampered - unnoticed} found\n")
    if unnoticed:
        problems.append(f"{unnoticed} changes of the audit log were not found")
    return len(lines), sum(line.refused for line in lines), problems


async def _all(arguments: argparse.Namespace) -> int:
    with tempfile.TemporaryDirectory(prefix="circuit-breaker-attack-") as directory:
        made, refused, problems = await _run(Path(directory), arguments)
    leaked = 0
    if not arguments.only or "rights" in arguments.only:
        with tempfile.TemporaryDirectory(prefix="circuit-breaker-attack-") as directory:
            text, leaked, rights_problems = await rights_under_load(
                Path(directory), arguments.seed, short=arguments.short
            )
        sys.stdout.write(text + "\n")
        problems += rights_problems
    for problem in problems:
        sys.stdout.write(f"! {problem}\n")
    crashed = sum("crash" in problem or "does not answer" in problem for problem in problems)
    leaked += sum("leak" in problem for problem in problems)
    sys.stdout.write(f"{made} attacks, {refused} refused, {leaked} leaked, {crashed} crashed\n")
    return 0 if refused == made and not problems and not leaked else 1


def main() -> int:
    """Attack; 0 if nothing came of it."""
    parser = argparse.ArgumentParser(prog="make attack", description=__doc__)
    parser.add_argument("--short", action="store_true", help="fewer of each, for CI")
    parser.add_argument("--json", action="store_true", help="one object a line")
    parser.add_argument("--only", action="append", help="an attack's name, or rights; may be given again")
    parser.add_argument("--seed", type=int, default=4711)
    return uvloop.run(_all(parser.parse_args()))


if __name__ == "__main__":
    sys.exit(main())
