"""Subscriptions that are put back while no WebSocket gets through: each by itself, however many they are."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, final

from circuit_breaker_sdk import ConnectionFailed, SubscriptionState
from circuit_breaker_sdk.connections import FallbackLinks
from circuit_breaker_sdk.recovery.recovery import Recovery
from tests.waiting import until

_FALLBACKS = SimpleNamespace(is_critical=True, changes=None)


@final
class _Supervisor:
    """A supervisor whose connection never comes."""

    was_connected = True
    apart = None

    def on_rotated(self, hand_over: object) -> None: ...

    def on_state(self, listener: object) -> None: ...

    def may_mend(self, error: object) -> bool:
        return True

    async def connection(self) -> None:
        await asyncio.Event().wait()


@final
class _Delivery:
    """A critical subscription that counts how often it is looked at."""

    label = id = "ticks"
    state = SubscriptionState.LIVE
    is_stopped = False
    has_proven_link = True
    looks = 0

    def __init__(self, link: object) -> None:
        self.link = link

    @property
    def fallbacks(self) -> SimpleNamespace:
        _Delivery.looks += 1
        return _FALLBACKS

    def await_link(self, error: object) -> None:
        self.link = None


async def test_many_that_lose_a_fallback_go_on_without_a_look_at_each_other() -> None:
    poll: Any = object()
    resumed: list[object] = []

    def resume(delivery: Any, link: object) -> None:
        delivery.link = link
        resumed.append(delivery)

    supervisor: Any = _Supervisor()
    recovery = Recovery(
        supervisor,
        FallbackLinks([poll], rest_seconds=1.0),
        resume,
        running_on=lambda _: (),
        gives_up_at_once=False,
        live_seconds=10.0,
        retry_seconds=2.0,
        on_unknown=lambda _: None,
    )
    deliveries: list[Any] = [_Delivery(poll) for _ in range(100)]
    recovery.degrade()
    for delivery in deliveries:
        recovery.lost(delivery, ConnectionFailed("the poll has failed"))
    await until(lambda: len(resumed) == len(deliveries))
    assert resumed == deliveries
    assert _Delivery.looks <= 5 * len(deliveries)
    await recovery.aclose()
