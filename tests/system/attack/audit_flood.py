"""Attack the audit log: a stranger floods it with refusals, and the server is killed meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import aiohttp

from circuit_breaker_server.access.mutation_audit import position_of
from circuit_breaker_server.engine.command_origin import origin_of
from circuit_breaker_server.log.sqlite import SqliteEventLog
from circuit_breaker_server.security.audit import (
    AuditLimits,
    AuditLine,
    AuditPaths,
    AuditRecord,
    read,
    read_key,
    verify,
)
from circuit_breaker_server.security.audit.rotation import rotated_files
from tests.system.attack.attacks import workflow_of
from tests.system.attack.attempt import Attack, Scale, must
from tests.system.attack.world import ATTACKER, World, opened

__all__ = ["AUDIT_ATTACKS"]

_ALIASES: Final = 100
_BATCH: Final = 20
_AT_ONCE: Final = 10
_STRANGERS: Final = 4
_ROTATE_BYTES: Final = 64 * 1024
_HIDDEN: Final = " ".join(f'a{n}: workflow(id: "hidden{n}") {{ id }}' for n in range(_ALIASES))
_CREATED: Final = " ".join(
    f"a{n}: createResource(input: {{workflowId: $w, data: {{}}, metadata: {{}}}}) {{ id }}"
    for n in range(_BATCH)
)
_CREATE: Final = f"mutation($w: String!) {{ {_CREATED} }}"


async def _flood(world: World, asked: list[int]) -> None:
    """Ask for what is hidden until cancelled, with a token and without one."""
    async with world.http(ATTACKER) as http:
        while True:
            with contextlib.suppress(aiohttp.ClientError):
                await world.ask(http, "eve", f"{{ {_HIDDEN} }}")
                await http.post(
                    world.url, json={"query": "{ health }"}, headers={"Authorization": "Bearer x"}
                )
                asked[0] += _ALIASES + 1


async def _create(world: World, http: aiohttp.ClientSession, workflow: str) -> int:
    """Create resources in one request; return how many."""
    answer = await world.ask(http, "boss", _CREATE, w=workflow)
    return sum(made is not None for made in (answer.get("data") or {}).values())


async def _mutate(world: World, workflow: str, count: int) -> int:
    """Create at least so many resources during a flood, then kill the server in the middle of more."""
    asked, made = [0], 0
    flood = [asyncio.create_task(_flood(world, asked)) for _ in range(_STRANGERS)]
    try:
        async with world.http("127.0.0.1") as http:
            while made < count or asked[0] < 10 * _ALIASES:
                created = await asyncio.gather(*(_create(world, http, workflow) for _ in range(_AT_ONCE)))
                must(sum(created) == _AT_ONCE * _BATCH, "a mutation was refused during the flood")
                made += sum(created)
            late = [asyncio.create_task(_create(world, http, workflow)) for _ in range(_AT_ONCE)]
            await asyncio.wait(late, return_when=asyncio.FIRST_COMPLETED)
            world.kill()
            await asyncio.wait(late)
            made += sum(task.result() for task in late if task.exception() is None)
    finally:
        for task in flood:
            task.cancel()
        await asyncio.wait(flood)
    return made


async def _recorded(data_dir: Path) -> list[str]:
    """Return the positions of the mutations in the event log."""
    log = await SqliteEventLog.open(data_dir)
    try:
        return [
            position_of(log, record.offset) async for record in log.scan(after=0) if origin_of(record).action
        ]
    finally:
        await log.aclose()


def _listed(paths: AuditPaths) -> list[AuditRecord]:
    found = read(paths.log, read_key(paths.key), paths.anchor)
    return [each.record for each in found if isinstance(each, AuditLine)]


async def audit_flood(_world: World, scale: Scale) -> str:
    """Flood the audit log of another server with refusals, and kill that server."""
    began = time.monotonic()
    people: dict[str, tuple[str, list[str]]] = {"eve": ("other", ["workflow:read:nothing"])}
    with tempfile.TemporaryDirectory(prefix="circuit-breaker-attack-") as name:
        directory = Path(name)
        settings = {"audit_rotate_bytes": _ROTATE_BYTES}
        with opened(directory, people, **settings) as world:
            async with world.client("boss") as boss:
                workflow = await workflow_of(boss)
            made = await _mutate(world, workflow, scale.audited)
        with opened(directory, people, **settings) as world:
            async with world.http("127.0.0.1") as http:
                made += await _create(world, http, workflow)
        paths = AuditPaths.of(directory / "data")
        found = verify(paths.log, read_key(paths.key), paths.anchor)
        must(found.whole, f"the chain is broken: {found.findings[:3]}")
        files = len(rotated_files(paths.log)) + 1
        must(files > 1, "the log was not rotated")
        lines = _listed(paths)
        mutations = [line.record for line in lines if line.action == "mutate" and line.decision == "allowed"]
        must(len(mutations) > made, f"{made} mutations were answered, and {len(mutations)} have a line")
        must(mutations == await _recorded(directory / "data"), "the lines are not those of the event log")
        strangers = sum(line.principal in ("eve", "") and line.decision == "refused" for line in lines)
        limits = AuditLimits()
        windows = (time.monotonic() - began) / limits.window_seconds + 2
        most = windows * (2 * limits.refusals + 2)
        must(strangers <= most, f"the strangers have {strangers} lines, more than {most:.0f}")
        counted = sum(line.count or 0 for line in lines if line.action == "counted")
    text = f"{made} mutations have a line each, in {files} files"
    return f"{text}; strangers have {strangers}, and {counted} refusals are counted"


AUDIT_ATTACKS: Final[Mapping[str, Attack]] = {"flood of refusals": audit_flood}
