"""Servers with cursors of their own, one dialect each: killed and cut, while what they promise is kept."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any, Final, NamedTuple

from circuit_breaker_sdk import Continuity, GapError, Subscription
from tests.integration.cursor_server import COLUMN, CursorServer, EventIdServer, ExtensionServer
from tests.integration.cursor_stage import (
    BY_COLUMN,
    Row,
    World,
    go_through,
    numbered,
    orders,
    streamed,
    world,
)
from tests.system.chaos.result import Result
from tests.system.chaos.world import until

_PATIENCE_SECONDS: Final = 20.0
_DOUBLES: Final = 3
"""Events before its cursor that a server sends once more, where that is left out by the client."""


async def _by_field(w: World, seen: list[int]) -> Subscription[Any]:
    subscription = await orders(w)
    subscription.on_data(lambda order: seen.append(order.number))
    w.server.publish(1)
    await until(lambda: seen, _PATIENCE_SECONDS)
    return subscription


async def _by_column(w: World, seen: list[int]) -> Subscription[Any]:
    variables = {"cursor": {"initial_value": {"id": -1}}}
    subscription = await w.client.subscribe(COLUMN, variables, type=list[Row], resume=BY_COLUMN)
    subscription.on_data(lambda rows: seen.extend(row.id for row in rows))
    w.server.publish(1)
    await until(lambda: seen, _PATIENCE_SECONDS)
    return subscription


class _Dialect(NamedTuple):
    server: type[CursorServer]
    subscribe: Callable[[World, list[int]], Awaitable[Subscription[Any]]]
    transports: tuple[str, ...] = ("websocket", "sse", "poll")
    doubles: int = 0


_DIALECTS: Final[Mapping[str, _Dialect]] = {
    "field and argument": _Dialect(CursorServer, _by_field, doubles=_DOUBLES),
    "column": _Dialect(CursorServer, _by_column),
    "extensions": _Dialect(ExtensionServer, numbered, doubles=_DOUBLES),
    # What it sends twice comes twice: a server may number each connection anew, and events would be lost.
    "id of a server-sent event": _Dialect(EventIdServer, streamed, ("sse",)),
}


async def cursor_dialects(directory: Path, seed: int, *, long: bool) -> Result:
    """Go through cuts and kills with each dialect, then let the server forget: that is a gap, and told."""
    del directory  # the servers keep nothing
    events, cuts, kills = (20_000, 200, 5) if long else (1_000, 20, 2)
    result = Result(experiment="cursor dialects", seed=seed)
    for name, dialect in _DIALECTS.items():
        async with world(dialect.server, transports=dialect.transports) as w:
            seen: list[int] = []
            subscription = await dialect.subscribe(w, seen)
            # So many that none from before the first is sent once more.
            w.server.publish(10)
            await until(lambda: seen[-1] == w.server.count - 1, _PATIENCE_SECONDS)  # noqa: B023 (awaited here)
            w.server.doubles = dialect.doubles
            await go_through(w, seen, events=events, cuts=cuts, kills=kills)
            counts, wanted = Counter(seen), range(seen[0], w.server.count)
            lost, doubled = sum(n not in counts for n in wanted), len(seen) - len(counts)
            filtered = subscription.stats().filtered
            result.events += len(wanted)
            result.lost += lost
            result.duplicated += doubled
            result.reordered += sum(later < earlier for earlier, later in pairwise(seen))
            result.detail[name] = {
                "events": len(wanted), "cuts": cuts, "kills": kills, "filtered": filtered
            }  # fmt: skip
            result.require(
                subscription.continuity is Continuity.RESUMED, f"{name}: {subscription.continuity}"
            )
            result.require(not dialect.doubles or filtered, f"{name}: nothing was doubled on purpose")
            w.server.kept_from = w.server.count + 1
            w.proxy.cut()
            await until(lambda: subscription.state.is_end, _PATIENCE_SECONDS)  # noqa: B023 (awaited here)
            error = subscription.error
            result.require(
                isinstance(error, GapError), f"{name}: the server forgot, and it ended with {error!r}"
            )
            result.gaps_signalled += isinstance(error, GapError)
    result.require_zeros()
    return result
