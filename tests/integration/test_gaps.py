"""Gaps, on a real server whose log is another one: told, bridged by a snapshot, never silent."""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec
import pytest

from circuit_breaker_sdk import (
    Client,
    ConnectionFailed,
    Continuity,
    Gap,
    GapError,
    RateLimitExceeded,
    SubscriptionState,
)
from circuit_breaker_sdk.recovery import gaps
from circuit_breaker_sdk.streams import ResourceUpdateSubscriptionBuilder
from circuit_breaker_sdk.testing import FaultProxy
from circuit_breaker_sdk.types import Resource
from circuit_breaker_server import RateSettings, Server, ServerSettings
from tests.integration.policies import NEVER_OPEN, SOON
from tests.integration.strawberry_server import TickEvent, strawberry_server
from tests.integration.workflows import create_review_workflow, number_of
from tests.waiting import until


def client_of(url: str) -> Client:
    return Client(url, recovery=SOON, circuit_breaker=NEVER_OPEN)


async def test_who_is_told_of_a_gap_gets_the_present_state_then_all_that_comes_after(
    tmp_path: Path,
) -> None:
    first = Server(ServerSettings(port=0, data_dir=tmp_path / "one"))
    await first.start()
    course: list[object] = []
    async with client_of(first.url) as client:
        updates = await client.workflows.subscribe_resource_updates().on_gap(course.append).subscribe()
        async with Client(first.url) as direct:
            workflow = (await create_review_workflow(direct)).id
            await direct.workflows.create_resource(workflow_id=workflow, data={"n": "old"})
        await until(lambda: updates.stats().buffered_events)
        await first.aclose()
        async with Server(ServerSettings(port=first.port, data_dir=tmp_path / "two")) as second:
            async with Client(second.url) as direct:
                workflow = (await create_review_workflow(direct)).id
                made = await direct.workflows.create_resource(workflow_id=workflow, data={"n": "missed"})
                await until(lambda: updates.stats().gaps)
                assert not course, "what came before the gap is handled before it"
                assert number_of(await anext(updates)) == "old"
                for _ in range(100):
                    await asyncio.sleep(0)
                assert not course, "it is handled when the next one is asked for"
                following = asyncio.ensure_future(anext(updates))
                await until(lambda: updates.state is SubscriptionState.LIVE)
                await direct.workflows.create_resource(workflow_id=workflow, data={"n": "new"})
            assert number_of(await following) == "new"
    (gap,) = course
    assert isinstance(gap, Gap)
    assert (gap.reason, [resource.id for resource in gap.snapshot]) == ("epoch", [made.id])
    assert gap.cursor is not None
    assert updates.continuity is Continuity.GAP


async def test_a_snapshot_of_the_applications_own_and_an_async_handler(tmp_path: Path) -> None:
    first = Server(ServerSettings(port=0, data_dir=tmp_path / "one"))
    await first.start()
    told: list[str] = []

    async with client_of(first.url) as client:

        async def health() -> object:
            return await client.server_health()

        async def note(gap: Gap) -> None:
            told.append(f"{gap.reason}: {gap.snapshot}")
            raise ValueError("a handler that raises stops nothing")

        document = "subscription { resourceUpdates { id data } }"
        updates = await client.subscribe(document, type=dict[str, object], on_gap=note, snapshot=health)
        await first.aclose()
        async with Server(ServerSettings(port=first.port, data_dir=tmp_path / "two")) as second:
            await until(lambda: told and updates.state is SubscriptionState.LIVE)
            async with Client(second.url) as direct:
                workflow = (await create_review_workflow(direct)).id
                made = await direct.workflows.create_resource(workflow_id=workflow)
            assert (await anext(updates))["id"] == made.id
        assert told == ["epoch: ok"]
        assert updates.stats().handler_errors == 1


async def test_a_snapshot_that_cannot_be_read_yet_is_tried_again(tmp_path: Path) -> None:
    first = Server(ServerSettings(port=0, data_dir=tmp_path / "one"))
    await first.start()
    tries: list[int] = []
    gaps: list[Gap] = []

    async def snapshot() -> object:
        tries.append(1)
        if len(tries) < 3:
            raise ConnectionFailed("not yet")
        return "state"

    async with client_of(first.url) as client:
        builder = client.subscriptions.resource_updates().on_gap(gaps.append, snapshot=snapshot)
        updates = await builder.subscribe()
        await first.aclose()
        async with Server(ServerSettings(port=first.port, data_dir=tmp_path / "two")):
            await until(lambda: updates.state is SubscriptionState.LIVE)
    assert (len(tries), [gap.snapshot for gap in gaps]) == (3, ["state"])


async def test_nobody_who_is_told_means_that_the_gap_is_raised(tmp_path: Path) -> None:
    async with (
        Server(ServerSettings(port=0, data_dir=tmp_path)) as server,
        client_of(server.url) as client,
    ):
        elsewhere = "00000000000000ff.7.0.0123abcd"
        with pytest.raises(GapError, match="epoch"):
            await client.subscriptions.resource_updates().after(elsewhere).subscribe()
        gaps: list[Gap] = []
        builder = client.subscriptions.resource_updates().after(elsewhere).on_gap(gaps.append)
        updates = await builder.subscribe()
        assert (updates.state, [gap.reason for gap in gaps]) == ("live", ["epoch"])


async def test_after_a_reconnect_without_cursors_nobody_knows_and_that_is_told() -> None:
    async with strawberry_server() as url:
        port = int(url.rpartition(":")[2].partition("/")[0])
        gaps: list[Gap] = []
        async with (
            FaultProxy("127.0.0.1", port) as proxy,
            client_of(f"ws://127.0.0.1:{proxy.port}/graphql") as client,
        ):
            document = "subscription($upto: Int!) { ticks(upto: $upto) { number label } }"
            ticks = await client.subscribe(
                document, {"upto": 100_000_000}, type=TickEvent, on_gap=gaps.append
            )
            assert (await anext(ticks)).number >= 0
            proxy.cut()
            await until(lambda: gaps)
            assert gaps == [Gap(reason="unknown", snapshot=None, cursor=None)]
            assert ticks.continuity is Continuity.UNKNOWN
            await ticks.unsubscribe()


# Cursors that outlive the program --------------------------------------------------------------------------


async def test_a_program_that_starts_again_goes_on_where_it_stopped(tmp_path: Path) -> None:
    store = tmp_path / "cursors.json"
    async with (
        Server(ServerSettings(port=0, data_dir=tmp_path / "data")) as server,
        Client(server.url) as direct,
    ):
        workflow = (await create_review_workflow(direct)).id

        async def read(count: int) -> list[object]:
            async with Client(server.url, cursor_store=store) as client:
                builder = client.workflows.subscribe_resource_updates(workflow_id=workflow).cursor_key("all")
                async with builder as updates:
                    await publish()
                    return [number_of(await anext(updates)) for _ in range(count)]

        published = 0

        async def publish() -> None:
            nonlocal published
            for _ in range(3):
                await direct.workflows.create_resource(workflow_id=workflow, data={"n": published})
                published += 1

        # The last event read was not followed by asking for another: it is not handled, and comes again.
        assert await read(2) == [0, 1]
        assert await read(3) == [1, 2, 3]
        assert list(msgspec.json.decode(store.read_bytes())) == ["all"]
        assert await read(6) == [3, 4, 5, 6, 7, 8]


async def test_what_was_not_acknowledged_comes_again_and_what_was_does_not(tmp_path: Path) -> None:
    store = tmp_path / "cursors.json"
    async with (
        Server(ServerSettings(port=0, data_dir=tmp_path / "data")) as server,
        FaultProxy("127.0.0.1", server.port) as proxy,
        Client(server.url) as direct,
    ):
        workflow = (await create_review_workflow(direct)).id

        async def publish(*numbers: int) -> None:
            for number in numbers:
                await direct.workflows.create_resource(workflow_id=workflow, data={"n": number})

        def opened(client: Client) -> ResourceUpdateSubscriptionBuilder:
            return client.workflows.subscribe_resource_updates(workflow_id=workflow).cursor_key("all")

        async with (
            Client(f"ws://127.0.0.1:{proxy.port}/graphql", cursor_store=store) as client,
            opened(client) as updates,
        ):
            await publish(0, 1, 2, 3)
            events = updates.acknowledged()
            first = [await anext(events) for _ in range(4)]
            for place in (0, 1, 3):
                await first[place].ack()
            saved = msgspec.json.decode(store.read_bytes())
            assert saved == {"all": updates.cursor}
            proxy.cut()
            await publish(4)
            # A lost connection brings nothing again: what is pending is still with its worker.
            assert number_of((await anext(events)).value) == 4
        async with Client(server.url, cursor_store=store) as client, opened(client) as updates:
            events = updates.acknowledged()
            again = [await anext(events) for _ in range(3)]
            assert [number_of(event.value) for event in again] == [2, 3, 4]
            await asyncio.gather(*(event.ack() for event in reversed(again)))
        async with Client(server.url, cursor_store=store) as client, opened(client) as updates:
            await publish(5)
            assert number_of(await anext(updates)) == 5


async def test_handlers_that_have_returned_have_handled(tmp_path: Path) -> None:
    kept: dict[str, str] = {}

    class Store:
        async def load(self, key: str) -> str | None:
            return kept.get(key)

        async def save(self, key: str, cursor: str) -> None:
            kept[key] = cursor

    async with (
        Server(ServerSettings(port=0, data_dir=tmp_path / "data")) as server,
        Client(server.url) as direct,
    ):
        workflow = (await create_review_workflow(direct)).id
        seen: list[Resource] = []
        for round_ in range(1, 4):
            async with Client(server.url, cursor_store=Store()) as client:
                builder = client.workflows.subscribe_resource_updates(workflow_id=workflow).cursor_key("k")
                (await builder.subscribe()).on_update(seen.append)
                await direct.workflows.create_resource(workflow_id=workflow)
                await until(lambda n=round_: len(seen) == n)  # type: ignore[misc]
        assert len({resource.id for resource in seen}) == 3


async def test_a_gap_is_told_after_an_async_handler_is_done_with_the_last_event_before_it(
    tmp_path: Path,
) -> None:
    first = Server(ServerSettings(port=0, data_dir=tmp_path / "one"))
    await first.start()
    course: list[object] = []
    begun, goes_on = asyncio.Event(), asyncio.Event()

    async def slowly(resource: Resource) -> None:
        begun.set()
        await goes_on.wait()
        course.append(number_of(resource))

    async with client_of(first.url) as client:
        updates = await client.workflows.subscribe_resource_updates().on_gap(course.append).subscribe()
        updates.on_update(slowly)
        async with Client(first.url) as direct:
            workflow = (await create_review_workflow(direct)).id
            await direct.workflows.create_resource(workflow_id=workflow, data={"n": "old"})
        await begun.wait()
        await first.aclose()
        async with Server(ServerSettings(port=first.port, data_dir=tmp_path / "two")):
            await until(lambda: updates.stats().gaps)
            for _ in range(100):
                await asyncio.sleep(0)
            assert course == []
            goes_on.set()
            await until(lambda: len(course) == 2)
    assert course[0] == "old"
    assert isinstance(course[1], Gap)


async def test_a_rate_that_is_limited_after_a_gap_is_obeyed_and_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The request for the present position, and the snapshot, are refused for a while."""
    # The pause without a rate: whoever does not obey the server's waits for an hour.
    monkeypatch.setattr(gaps, "_RETRY_SECONDS", 3600.0)
    monkeypatch.setattr(gaps, "_MAX_RETRY_SECONDS", 3600.0)
    first = Server(ServerSettings(port=0, data_dir=tmp_path / "one"))
    await first.start()
    course: list[object] = []
    errors: list[object] = []
    failures = [RateLimitExceeded(0.01), RateLimitExceeded(0.01)]

    async def snapshot() -> str:
        if failures:
            raise failures.pop()
        return "now"

    async with client_of(first.url) as client:
        builder = client.workflows.subscribe_resource_updates()
        updates = await builder.on_gap(course.append, snapshot=snapshot).subscribe()
        updates.on_error(errors.append).on_update(lambda _: None)
        await first.aclose()
        settings = ServerSettings(
            port=first.port, data_dir=tmp_path / "two", rates=RateSettings(subscribes_per_second=1)
        )
        async with Server(settings):
            await until(
                lambda: updates.continuity is Continuity.GAP and updates.state is SubscriptionState.LIVE
            )
    (gap,) = course
    assert isinstance(gap, Gap)
    assert gap.snapshot == "now"
    assert len([each for each in errors if isinstance(each, RateLimitExceeded)]) >= 2
    assert updates.error is None


async def test_a_snapshot_that_keeps_failing_ends_the_subscription_with_its_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gaps, "_RETRY_SECONDS", 0.001)
    monkeypatch.setattr(gaps, "_MAX_RETRY_SECONDS", 0.001)
    first = Server(ServerSettings(port=0, data_dir=tmp_path / "one"))
    await first.start()
    calls: list[None] = []

    async def snapshot() -> str:
        calls.append(None)
        raise ValueError("no state today")

    async with client_of(first.url) as client:
        builder = client.workflows.subscribe_resource_updates()
        updates = await builder.on_gap(lambda _: None, snapshot=snapshot).subscribe()
        await first.aclose()
        async with Server(ServerSettings(port=first.port, data_dir=tmp_path / "two")):
            with pytest.raises(ConnectionFailed, match="no state today"):
                await updates.wait_closed()
    assert len(calls) == 10
