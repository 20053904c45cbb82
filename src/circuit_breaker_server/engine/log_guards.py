"""Rules about several aggregates, as guards of the records that could break them.

What names a thing and what ends the thing exclude each other: each marks what the other one checks, at the
offset of the state that it was decided on. So they hold in the log, whoever else writes to it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Final

from circuit_breaker_server.log.event_log import Guards

__all__ = ["RUN", "claim_name", "ended", "ending", "going_on", "naming", "with_claim"]

RUN: Final = "run"
"""The kind of the runs of agents."""


def naming(kind: str, ids: Iterable[str], *, decided_at: int) -> Guards:
    """Return the guards of a record that names things: none of them has ended meanwhile."""
    names = tuple(ids)
    return Guards(
        decided_at=decided_at,
        unmarked=tuple(f"end.{kind}.{id_}" for id_ in names),
        marks=tuple(f"named.{kind}.{id_}" for id_ in names),
    )


def ending(kind: str, id_: str, *, decided_at: int) -> Guards:
    """Return the guards of a record that ends a thing: nothing has come to name it meanwhile."""
    return Guards(decided_at=decided_at, unmarked=(f"named.{kind}.{id_}",), marks=(f"end.{kind}.{id_}",))


def ended(kind: str, id_: str, *, decided_at: int) -> Guards:
    """Return the guards of a record that ends what others go on with: they cannot from there on."""
    return Guards(decided_at=decided_at, marks=(f"end.{kind}.{id_}",))


def going_on(kind: str, id_: str, *, decided_at: int) -> Guards:
    """Return the guards of a record that something writes elsewhere: it has not ended meanwhile."""
    return Guards(decided_at=decided_at, unmarked=(f"end.{kind}.{id_}",))


def claim_name(principal: str, key: str) -> str:
    """Return the name that the mutation under an idempotency key marks."""
    return "claim." + hashlib.sha256(f"{principal}\0{key}".encode()).hexdigest()[:32]


def with_claim(guards: Guards | None, name: str, *, decided_at: int) -> Guards:
    """Return guards with those of a claim: nobody has claimed the name meanwhile."""
    if guards is None:
        return Guards(decided_at=decided_at, unmarked=(name,), marks=(name,))
    return Guards(
        decided_at=min(guards.decided_at, decided_at),
        unmarked=(*guards.unmarked, name),
        marks=(*guards.marks, name),
    )
