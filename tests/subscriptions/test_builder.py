"""What a builder sends, and how it is entered."""

from __future__ import annotations

import pytest

from circuit_breaker_sdk.errors import UsageError
from circuit_breaker_sdk.subscriptions import Subscription, SubscriptionBuilder
from tests.connections.raw_server import acknowledge, read_message, stay
from tests.subscriptions.managers import TICKS, manager
from tests.transports.peers import Peer


async def test_a_builder_keeps_its_arguments_takes_none_away_and_is_entered_once_at_a_time() -> None:
    sent: list[object] = []

    async def script(peer: Peer) -> None:
        await acknowledge(peer)
        sent.append((await read_message(peer))["payload"])
        await stay(peer)

    async with manager(script) as under_test:
        builder: SubscriptionBuilder[int, Subscription[int]] = SubscriptionBuilder(
            under_test, TICKS, Subscription
        )
        builder = builder._with("a", 1)._with("b", 2)._with("a", None)
        async with builder as ticks:
            with pytest.raises(UsageError, match="entered already"):
                await builder.__aenter__()
            assert ticks.state == "live"
        assert under_test.active == 0
    assert sent == [{"query": "subscription { tick }", "variables": {"b": 2}}]
    assert TICKS.variables is None
