"""Tokens that end while streams run, against the real server: renewed, handed over, nothing lost."""

from __future__ import annotations

from pathlib import Path

import pytest

from circuit_breaker_sdk import AuthenticationFailed, Continuity, SubscriptionState
from tests.integration.token_world import token, world
from tests.integration.workflows import number_of
from tests.waiting import until


async def test_a_token_is_renewed_before_it_ends_and_the_streams_go_over_whole(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        given: list[str] = []

        def source() -> str:
            # What is left of it when it is renewed has to last on a machine that is busy.
            given.append(token(2.0))
            return given[-1]

        async with w.client(source) as client:
            seen: list[object] = []
            others: list[object] = []
            builder = client.workflows.subscribe_resource_updates(workflow_id=w.workflow)
            updates = (await builder.subscribe()).on_update(lambda r: seen.append(number_of(r)))
            (await builder.subscribe()).on_update(lambda r: others.append(number_of(r)))
            n = 0
            while len(given) < 3:
                await w.publish(n)
                n += 1
            await until(lambda: len(seen) == len(others) == n)
            assert seen == others == list(range(n))
            assert updates.continuity is Continuity.OK
            assert client.metrics.connection_failures == 0, "none was lost: each went when its time came"
            await until(lambda: w.proxy.connections_made >= 4)


async def test_the_server_may_close_first(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        # The client's clock believes it has time: what it is told is the close with 4403.
        lives = iter([0.3, 3600.0])
        async with w.client(lambda: token(next(lives))) as client:
            client._parts.first._tokens._clock = lambda: 0.0
            builder = client.workflows.subscribe_resource_updates(workflow_id=w.workflow)
            updates = await builder.subscribe()
            await w.publish(0)
            await until(lambda: client.metrics.connection_failures == 1)
            await w.publish(1)
            assert [number_of(await anext(updates)) for _ in range(2)] == [0, 1]
            assert isinstance(updates.last_error, AuthenticationFailed)
            assert updates.state is SubscriptionState.LIVE


async def test_a_plain_token_that_ends_is_an_error_at_once(tmp_path: Path) -> None:
    async with world(tmp_path) as w, w.client(token(0.3)) as client:
        updates = await client.subscriptions.resource_updates().subscribe()
        with pytest.raises(AuthenticationFailed, match="token expired"):
            await anext(updates)
        assert client.metrics.reconnection_attempts == 0


async def test_a_fresh_token_that_is_refused_as_well_is_the_end(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        asked: list[int] = []

        def source() -> str:
            asked.append(1)
            return token(3600, key=b"x" * 32)

        async with w.client(source) as client:
            with pytest.raises(AuthenticationFailed):
                await client.subscriptions.resource_updates().subscribe()
            assert len(asked) == 2
            with pytest.raises(AuthenticationFailed):
                await client.workflows.workflows()


async def test_requests_and_polls_use_the_fresh_token_too(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        lives = iter([-5.0, 3600.0, 3600.0])
        async with w.client(lambda: token(next(lives))) as client:
            client._parts.first._tokens._clock = lambda: 0.0
            # The first is refused, the second is not.
            assert len(await client.workflows.workflows()) == 1
        lives = iter([0.5, 0.5, 3600.0])  # the proxy's 403 might be about the token: the second
        asked: list[int] = []

        def source() -> str:
            asked.append(1)
            return token(next(lives))

        async with w.client(source, critical=True) as client:
            w.proxy.refuses_upgrades = True
            client._parts.first._tokens._clock = lambda: 0.0
            builder = client.workflows.subscribe_resource_updates(workflow_id=w.workflow)
            updates = await builder.subscribe()
            client._parts.first._tokens._replaced_at = 0.0
            await until(lambda: len(asked) == 3)
            await w.publish(7)
            assert number_of(await anext(updates)) == 7
