"""Generated runs of one gateway: one peer misbehaves, the others get exactly what they would.

Each run has two to five peers with one or two subscriptions each; one of them misbehaves in a way that a seed
chooses. The sequences of the others have to be those of the log.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Mapping
from typing import Final

import pytest
import structlog.testing

from circuit_breaker_server.access.streams import EVERYTHING_SEEN, View
from circuit_breaker_server.engine.errors import EngineError, ErrorCode
from circuit_breaker_server.engine.events import Selection
from circuit_breaker_server.gateway.gateway import Gateway
from circuit_breaker_server.security.rights import Rights
from tests.server.gateway.failing_peer import Failing
from tests.server.gateway.worlds import (
    ALL_THINGS,
    ONE_THING,
    TAGGED,
    FakePeer,
    ScriptedLog,
    running,
    select,
    turns,
)

RUNS: Final = 100
SEEDS: Final = range(30)
WAYS: Final = (
    "write raises",
    "signal raises",
    "fail raises",
    "drop raises",
    "ends inside a write",
    "detaches inside a write",
    "subscribes inside a write",
    "predicate raises",
    "rights withdrawn",
    "looking raises",
    "does not read",
    "asks for what is not there",
)


def choosy(field: str, arguments: Mapping[str, object]) -> Selection:
    """Select as the schema's server does; the tag `boom` has a predicate that raises."""
    if arguments.get("tag") == "boom":
        return Selection(("thing.*",), _boom)
    return select(field, arguments)


def _boom(_value: object) -> bool:
    raise RuntimeError("this predicate fails")


class Rules:
    """What is seen, for a run whose culprit loses its rights."""

    def __init__(self) -> None:
        self.withdrawn: str | None = None

    def look(self, _rights: Rights, _field: str, arguments: Mapping[str, object]) -> View:
        if self.withdrawn is not None and arguments.get("tag") == "culprit":
            if self.withdrawn == "looking raises":
                raise RuntimeError("looking fails")
            raise EngineError(ErrorCode.NOT_FOUND, "no longer to be seen")
        return EVERYTHING_SEEN


def culprit_of(gateway: Gateway, how: str, rules: Rules, chance: random.Random) -> Callable[[], object]:
    """Attach the peer that misbehaves; return what makes it do so."""
    broken = {
        "write raises": ("write",),
        "signal raises": ("signal",),
        "fail raises": ("write", "fail"),
        "drop raises": ("write", "drop"),
    }.get(how, ())
    peer = Failing(gateway, *broken, room=0 if how == "does not read" else None)
    match how:
        case "predicate raises":
            peer.subscribe("x", TAGGED, {"tag": "boom"})
        case "rights withdrawn" | "looking raises":
            peer.subscribe("x", TAGGED, {"tag": "culprit"})

            def withdraw() -> None:
                rules.withdrawn = how
                gateway.review(peer.feed)

            return withdraw
        case "asks for what is not there":
            return lambda: _subscribe_missing(peer)
        case _:
            query, variables = chance.choice([(ALL_THINGS, None), (ONE_THING, {"id": "a"})])
            with contextlib.suppress(RuntimeError):  # its own caller is told
                peer.subscribe("x", query, variables)
    match how:
        case "ends inside a write":
            peer.on_write = lambda: peer.feed.unsubscribe("x")
        case "detaches inside a write":
            peer.on_write = lambda: gateway.detach(peer.feed)
        case "subscribes inside a write":
            numbers = iter(range(1_000))
            peer.on_write = lambda: peer.subscribe(f"y{next(numbers)}") if len(peer.writes) < 3 else None
    return lambda: None


def _subscribe_missing(peer: FakePeer) -> None:
    with pytest.raises(Exception, match="missing"):
        peer.subscribe("x", ONE_THING, {"id": "missing"})


@pytest.mark.parametrize("seed", SEEDS)
async def test_the_others_get_exactly_what_the_log_holds(seed: int) -> None:
    chance = random.Random(seed)  # noqa: S311 (chance)
    with structlog.testing.capture_logs():
        for number in range(RUNS):
            how = WAYS[number % len(WAYS)]
            log, rules = ScriptedLog(), Rules()
            async with running(
                log, select=choosy, look=rules.look, ring_size=chance.choice([1, 4, 64])
            ) as gateway:
                innocent: list[FakePeer] = []

                def add(gateway: Gateway = gateway, innocent: list[FakePeer] = innocent) -> None:
                    peer = FakePeer(gateway)
                    for operation in range(chance.randrange(1, 3)):
                        peer.subscribe(str(operation))
                    innocent.append(peer)

                for _ in range(chance.randrange(0, 3)):
                    add()
                misbehave = culprit_of(gateway, how, rules, chance)
                for _ in range(chance.randrange(1, 3)):
                    add()
                await turns()
                sent = chance.randrange(2, 8)
                at = chance.randrange(sent)
                for event in range(sent):
                    if event == at:
                        misbehave()
                    log.thing("a", event)
                    if chance.random() < 0.5:
                        await turns(chance.randrange(1, 5))
                await turns(40)
                for peer in innocent:
                    for operation in list(peer.feed.subscribers):
                        assert peer.numbers(operation) == list(range(sent)), (seed, number, how)
                    assert not peer.failures, (seed, number, how)
                    assert not peer.dropped, (seed, number, how)
                    assert len(peer.feed.subscribers) >= 1
