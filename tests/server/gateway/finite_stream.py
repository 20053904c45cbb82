"""A log of one stream that begins and ends, and a gateway over it."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Mapping
from typing import Final

from circuit_breaker_server.engine.cursor import Cursor
from circuit_breaker_server.engine.events import Finite, Selection
from circuit_breaker_server.gateway.gateway import Gateway
from tests.server.gateway.worlds import ONE_THING, FakePeer, ScriptedLog, running

__all__ = ["LAST", "Story", "follow", "telling"]

LAST: Final = 9
"""The number of the last event of the stream."""


class Story(ScriptedLog):
    """A log of one stream: a record without events, then things numbered up to the last one."""

    def begin(self) -> None:
        self.put(("thing.s", []))

    def tell(self, *numbers: int) -> None:
        for n in numbers:
            self.put(("thing.s", [("things", {"id": "s", "n": n, "tag": None})]))

    def start(self) -> Cursor | None:
        first = next((r for r in self.records.values() if r.subject == "thing.s"), None)
        return None if first is None else Cursor(self.epoch, first.offset, 0, first.check)

    def is_over(self) -> bool:
        return any(b'"n":%d,' % LAST in record.data for record in self.records.values())

    def select(self, _field: str, _arguments: Mapping[str, object]) -> Selection:
        finite = Finite(self.start, self.is_over, lambda value: value["n"] == LAST, "there is no story")
        return Selection(("thing.s",), finite=finite)


@contextlib.asynccontextmanager
async def telling(
    *, begin_seconds: float = 60.0, ring_size: int = 1024
) -> AsyncIterator[tuple[Story, Gateway]]:
    """Run a gateway over the log of a stream that has not begun."""
    log = Story()
    log.thing("other", 1)
    async with running(log, select=log.select, begin_seconds=begin_seconds, ring_size=ring_size) as gateway:
        yield log, gateway


def follow(
    gateway: Gateway, *, after: str | None = None, resume: bool = True, room: int | None = None
) -> FakePeer:
    """Subscribe a new peer to the stream."""
    peer = FakePeer(gateway, resume=resume, room=room)
    peer.subscribe("1", ONE_THING, {"id": "s"}, after=after)
    return peer
