"""Tell a peer how many records of the log its subscriptions are behind (docs/resume.md, 12)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from circuit_breaker_server.access.caller import Caller
from circuit_breaker_server.engine.cursor import Cursors
from circuit_breaker_server.gateway.feed import Feed
from circuit_breaker_server.gateway.gateway import Gateway

__all__ = ["MAX_PLACES", "asked_places", "may_be_told", "records_behind"]

MAX_PLACES: Final = 64
"""The most subscriptions that one question names; what is beyond them is not answered."""


def may_be_told(caller: Caller, cursors: Cursors) -> bool:
    """Tell whether a caller may learn how many records others write.

    Where cursors are sealed, only a caller with every right may.
    """
    return not cursors.is_sealed or caller.rights.is_unlimited


def asked_places(payload: Mapping[str, object] | None) -> Mapping[str, object] | None:
    """Return what a ``ping`` asks about: cursors by operation id; ``None`` where it asks nothing."""
    resume = (payload or {}).get("resume")
    asked = resume.get("behind") if isinstance(resume, dict) else None
    return asked if isinstance(asked, dict) else None


def records_behind(gateway: Gateway, feed: Feed, asked: Mapping[str, object]) -> dict[str, int]:
    """Return for operations how many records of the log are behind their places.

    An operation that runs is behind by what was not sent to it: nothing, where all that matches was. Of one
    that does not run, its cursor tells. What cannot be read as a cursor of this log has no answer.
    """
    found: dict[str, int] = {}
    for id_, text in list(asked.items())[:MAX_PLACES]:
        subscriber = feed.subscribers.get(id_)
        if subscriber is not None and subscriber.unverified is None:
            offset = gateway.last_offset if subscriber.is_current else subscriber.position[0]
        else:
            try:
                cursor = gateway.reader.cursors.parse(text if isinstance(text, str) else "")
            except ValueError:
                continue
            if cursor.epoch != gateway.reader.cursors.epoch:
                continue
            offset = cursor.offset
        found[id_] = max(gateway.last_offset - offset, 0)
    return found
