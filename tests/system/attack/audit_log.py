"""Changes of an audit log that somebody might make, each of which must be found."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

from circuit_breaker_server.security.audit import AuditPaths, read_key, verify

__all__ = ["tamper"]


def tamper(data_dir: Path, seed: int, *, each: int = 20) -> tuple[int, int]:
    """Flip bytes, drop and swap lines, cut the tail; return how many changes were made, and not found."""
    paths = AuditPaths.of(data_dir)
    key, whole = read_key(paths.key), paths.log.read_bytes()
    made = unnoticed = 0
    try:
        for changed in _changes(whole, random.Random(seed), each):
            paths.log.write_bytes(changed)
            made += 1
            unnoticed += verify(paths.log, key, paths.anchor).whole
    finally:
        paths.log.write_bytes(whole)
    return made, unnoticed


def _changes(whole: bytes, chance: random.Random, each: int) -> Iterator[bytes]:
    lines = whole.splitlines(keepends=True)
    for _ in range(each):
        place = chance.randrange(len(whole))
        yield whole[:place] + bytes((whole[place] ^ 1 << chance.randrange(8),)) + whole[place + 1 :]
    for _ in range(each):
        number = chance.randrange(len(lines))
        yield b"".join(lines[:number] + lines[number + 1 :])
    for _ in range(each):
        number = chance.randrange(len(lines) - 1)
        yield b"".join([*lines[:number], lines[number + 1], lines[number], *lines[number + 2 :]])
    for _ in range(each):
        yield whole[: chance.randrange(len(whole))]
