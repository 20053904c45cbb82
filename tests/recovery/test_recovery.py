"""Subscriptions that are put back while no WebSocket gets through: each by itself, however many they are."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, final

import pytest

from circuit_breaker_sdk import ConnectionFailed, SubscriptionState
from circuit_breaker_sdk.connections import FallbackLinks
from circuit_breaker_sdk.recovery.recovery import Recovery
from tests.waiting import until

_FALLBACKS = SimpleNamespace(is_critical=True, changes=None)


@final
class _Supervisor:
    """A supervisor with one connection; without one it never comes."""

    was_connected = True
    apart = None

    def __init__(self, present: object = None) -> None:
        self._present = present

    def on_rotated(self, hand_over: object) -> None: ...

    def on_state(self, listener: object) -> None: ...

    def may_mend(self, error: object) -> bool:
        return True

    async def connection(self) -> object:
        if self._present is None:
            await asyncio.Event().wait()
        return self._present


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


def recovering(supervisor: Any, poll: Any, resumed: list[object]) -> Recovery:
    def resume(delivery: Any, link: object) -> None:
        delivery.link = link
        resumed.append(delivery)

    return Recovery(
        supervisor,
        FallbackLinks([poll], rest_seconds=1.0),
        resume,
        running_on=lambda _: (),
        gives_up_at_once=False,
        live_seconds=10.0,
        retry_seconds=2.0,
        on_unknown=lambda _: None,
    )


async def test_many_that_lose_a_fallback_go_on_without_a_look_at_each_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_Delivery, "looks", 0)
    poll, resumed = object(), list[object]()
    recovery = recovering(_Supervisor(), poll, resumed)
    deliveries: list[Any] = [_Delivery(poll) for _ in range(100)]
    recovery.degrade()
    for delivery in deliveries:
        recovery.lost(delivery, ConnectionFailed("the poll has failed"))
    await until(lambda: len(resumed) == len(deliveries))
    assert resumed == deliveries
    assert _Delivery.looks <= 5 * len(deliveries)
    await recovery.aclose()


async def test_resuming_very_many_lets_others_have_their_turn() -> None:
    connection = SimpleNamespace(is_usable=True, resume_negotiated=True)
    resumed: list[object] = []
    recovery = recovering(_Supervisor(connection), object(), resumed)
    deliveries: list[Any] = [_Delivery(None) for _ in range(1000)]
    for delivery in deliveries:
        recovery.put_back(delivery)
    at_once = before = 0

    def all_are_resumed() -> bool:
        nonlocal at_once, before
        at_once, before = max(at_once, len(resumed) - before), len(resumed)
        return before == len(deliveries)

    await until(all_are_resumed)
    assert resumed == deliveries
    assert at_once <= 100
    await recovery.aclose()
