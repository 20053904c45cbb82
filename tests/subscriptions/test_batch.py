"""Many subscriptions as one: started together, iterated fairly, isolated, ended together."""

from __future__ import annotations

import asyncio
import contextlib
import gc
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast, final

import pytest

from circuit_breaker_sdk import (
    BatchSubscriptionManager,
    Client,
    ConnectionFailed,
    ErrorRecoveryPolicy,
    Subscription,
    SubscriptionFailed,
    SubscriptionState,
    UsageError,
)
from circuit_breaker_sdk.streams import BatchEvent
from circuit_breaker_sdk.transports.websocket import WebSocket
from circuit_breaker_sdk.types import Resource, Workflow, WorkflowEvent
from circuit_breaker_server import Server, ServerSettings
from tests.integration.workflows import create_review_workflow
from tests.transports.peers import TEXT, Peer, serve
from tests.waiting import until


class World:
    """A server, a client and a workflow."""

    def __init__(self, server: Server, client: Client, workflow: Workflow) -> None:
        self.server = server
        self.client = client
        self.workflow = workflow

    async def move(self, *activities: str) -> Resource:
        resource = await self.client.workflows.create_resource(workflow_id=self.workflow.id)
        for activity in activities:
            await self.client.workflows.execute_activity(resource_id=resource.id, activity_id=activity)
        return resource


@contextlib.asynccontextmanager
async def world(path: Path) -> AsyncIterator[World]:
    async with Server(ServerSettings(port=0, data_dir=path)) as server, Client(server.url) as client:
        yield World(server, client, await create_review_workflow(client))


class CountingTransport:
    """Stands before a socket's two ways to write and counts what passes."""

    def __init__(self, behind: object, counter: list[int]) -> None:
        self._behind = behind
        self._counter = counter

    def write(self, data: bytes) -> None:
        self._counter.append(len(data))
        self._behind.write(data)  # type: ignore[attr-defined]

    def send(self, kind: object, data: bytes) -> None:
        self._counter.append(len(data))
        self._behind.send(kind, data)  # type: ignore[attr-defined]

    def __getattr__(self, name: str) -> object:
        return getattr(self._behind, name)


async def count_writes(client: Client) -> list[int]:
    """Return a list that grows by the size of each write from now on."""
    connection = await client._parts.first.connection()
    socket = cast("WebSocket", connection._socket)
    writes: list[int] = []
    for name in ("_transport", "_underlying"):
        setattr(socket, name, CountingTransport(getattr(socket, name), writes))
    return writes


async def test_a_thousand_members_subscribe_in_one_write_and_end_in_one(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        writes = await count_writes(w.client)
        batch = BatchSubscriptionManager()
        for _ in range(1000):
            batch.add_subscription(w.client.workflows.subscribe_resource_updates())
        await batch.subscribe_all()
        # Behind it only pongs: the server's live signals are pings. It takes 16 of a peer's frames in a turn,
        # and signals what they have begun in one write; what comes in one read is answered in one.
        assert writes[0] > 1000 * 300
        assert len(writes) - 1 <= 1000 / 16 + 5
        assert w.client.metrics.active_subscriptions == 1000
        await w.move()
        items = [await anext(batch) for _ in range(1000)]
        assert {item.source for item in items} == set(batch.names)
        del writes[:]
        await batch.unsubscribe_all()
        assert w.client.metrics.active_subscriptions == 0
        await until(lambda: writes)
        assert len(writes) == 1


async def test_one_iterator_names_the_source_and_keeps_the_order_within_each(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        batch = BatchSubscriptionManager()
        batch.add_subscription(w.client.workflows.subscribe_resource_updates(), name="resources")
        batch.add_subscription(w.client.workflows.subscribe_workflow_events(workflow_id=w.workflow.id))
        async with batch:
            resource = await w.move("submit", "approve")
            items = [await anext(batch) for _ in range(8)]
        states = [item.event.state for item in items if isinstance(item.event, Resource)]
        assert states == ["draft", "review", "approved"]
        assert {item.source for item in items if isinstance(item.event, Resource)} == {"resources"}
        kinds = [item for item in items if isinstance(item.event, WorkflowEvent)]
        assert {item.source for item in kinds} == {"workflowEvents"}
        assert len(kinds) == 5
        with pytest.raises(AttributeError):
            items[0].source = "other"  # type: ignore[misc]
        assert items[0] == BatchEvent(items[0].source, items[0].event)
        assert resource.id
        with pytest.raises(StopAsyncIteration):
            await anext(batch)


async def test_a_busy_member_does_not_starve_a_quiet_one(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        batch = BatchSubscriptionManager()
        batch.add_subscription(w.client.workflows.subscribe_resource_updates(), name="busy")
        batch.add_subscription(w.client.workflows.subscribe_resource_updates(state="approved"), name="quiet")
        async with batch:
            await w.move(*["submit", "reject"] * 10, "submit", "approve")
            busy, quiet = batch.subscription("busy"), batch.subscription("quiet")
            await until(lambda: (busy.stats().received, quiet.stats().received) == (23, 1))
            assert "quiet" in [(await anext(batch)).source for _ in range(2)]


async def test_starting_leaves_alone_what_is_live_and_is_idempotent(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        live = await w.client.workflows.subscribe_resource_updates().subscribe()
        batch = BatchSubscriptionManager().add_subscription(live, name="live")
        batch.add_subscription(w.client.workflows.subscribe_resource_updates(), name="built")
        await batch.subscribe_all()
        built = batch.subscription("built")
        await batch.subscribe_all()
        assert batch.subscription("built") is built
        assert batch.subscription("live") is live
        assert w.client.metrics.active_subscriptions == 2
        await batch.unsubscribe_all()
        await batch.unsubscribe_all()
        assert live.state is built.state is SubscriptionState.UNSUBSCRIBED
        # A builder starts anew, an ended subscription cannot.
        await batch.subscribe_all()
        assert batch.subscription("built") is not built
        assert w.client.metrics.active_subscriptions == 1
        await w.move()
        assert (await anext(batch)).source == "built"
        await batch.unsubscribe_all()


async def test_a_failure_ends_only_what_this_call_started_and_names_the_member(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        live = await w.client.workflows.subscribe_resource_updates().subscribe()
        batch = BatchSubscriptionManager().add_subscription(live, name="live")
        batch.add_subscription(w.client.workflows.subscribe_resource_updates(), name="fine")
        batch.add_subscription(w.client.workflows.subscribe_workflow_events(workflow_id="no"), name="wrong")
        with pytest.raises(SubscriptionFailed, match="no") as failed:
            await batch.subscribe_all()
        assert failed.value.member == "wrong"
        assert failed.value.code == "NOT_FOUND"
        assert failed.value.__notes__ == ["member 'wrong' of the batch"]
        assert live.state is SubscriptionState.LIVE
        assert w.client.metrics.active_subscriptions == 1
        with pytest.raises(UsageError, match="no started member 'fine'"):
            batch.subscription("fine")
        await w.move()
        assert (await anext(batch)).source == "live"
        await batch.unsubscribe_all()


async def test_cancelling_the_start_ends_what_it_started(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        batch = BatchSubscriptionManager()
        for _ in range(3):
            batch.add_subscription(w.client.workflows.subscribe_resource_updates())
        starting = asyncio.create_task(batch.subscribe_all())
        await until(lambda: w.client.metrics.active_subscriptions == 3)
        starting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await starting
        assert w.client.metrics.active_subscriptions == 0


async def test_a_member_that_fails_is_raised_by_name_and_the_others_go_on(tmp_path: Path) -> None:
    never = ErrorRecoveryPolicy(max_retries=0)
    async with world(tmp_path) as w, Client(w.server.url, recovery=never) as other:
        batch = BatchSubscriptionManager()
        batch.add_subscription(w.client.workflows.subscribe_resource_updates(), name="fine")
        batch.add_subscription(other.workflows.subscribe_resource_updates(), name="one")
        batch.add_subscription(other.workflows.subscribe_resource_updates(), name="two")
        await batch.subscribe_all()
        one = batch.subscription("one")
        connection = await other._parts.first.connection()
        cast("WebSocket", connection._socket).abort()
        await until(lambda: one.state is SubscriptionState.FAILED)
        names = []
        for _ in range(2):
            with pytest.raises(ConnectionFailed) as failed:
                await anext(batch)
            names.append(failed.value.member)
            assert failed.value.url is not None
            assert failed.value.__notes__ == [f"member {failed.value.member!r} of the batch"]
        assert sorted(map(str, names)) == ["one", "two"]
        # The error that both share says nothing of either.
        assert one.error is not None
        assert one.error.member is None
        await w.move()
        assert (await anext(batch)).source == "fine"
        await batch.unsubscribe_all()


async def test_members_with_handlers_are_left_out(tmp_path: Path) -> None:
    seen: list[Resource] = []
    async with world(tmp_path) as w:
        handled = await w.client.workflows.subscribe_resource_updates().subscribe()
        handled.on_update(seen.append)
        batch = BatchSubscriptionManager().add_subscription(handled, name="handled")
        batch.add_subscription(w.client.workflows.subscribe_resource_updates(), name="later")
        batch.add_subscription(w.client.workflows.subscribe_resource_updates(), name="iterated")
        await batch.subscribe_all()
        cast("Subscription[Resource]", batch.subscription("later")).on_data(seen.append)
        await w.move()
        assert (await anext(batch)).source == "iterated"
        await until(lambda: len(seen) == 2)
        await batch.subscription("iterated").unsubscribe()
        with pytest.raises(StopAsyncIteration):
            await anext(batch)
        assert handled.state is SubscriptionState.LIVE
        await batch.unsubscribe_all()
        assert w.client.metrics.active_subscriptions == 0


async def test_cancelling_the_wait_loses_no_event_and_the_end_wakes_it(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        batch = BatchSubscriptionManager()
        batch.add_subscription(w.client.workflows.subscribe_resource_updates())
        await batch.subscribe_all()
        first = asyncio.ensure_future(anext(batch))
        await asyncio.sleep(0)
        with pytest.raises(UsageError, match="another task"):
            await anext(batch)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        await w.move()
        assert isinstance((await anext(batch)).event, Resource)
        waiting = asyncio.ensure_future(anext(batch, None))
        await asyncio.sleep(0)
        await batch.unsubscribe_all()
        assert await waiting is None


async def test_a_cursor_moves_when_the_next_event_is_asked_for(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        live = await w.client.workflows.subscribe_resource_updates().subscribe()
        batch = BatchSubscriptionManager().add_subscription(live)
        before = live.cursor
        await w.move("submit")
        await anext(batch)
        assert live.cursor == before
        await anext(batch)
        assert live.cursor != before
        await batch.unsubscribe_all()


async def test_a_batch_that_nobody_refers_to_ends_its_members(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        batch = BatchSubscriptionManager()
        batch.add_subscription(w.client.workflows.subscribe_resource_updates())
        await batch.subscribe_all()
        del batch
        gc.collect()
        await until(lambda: w.client.metrics.active_subscriptions == 0)


async def test_names_are_unique_and_a_subscription_is_in_one_batch_only(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        build = w.client.workflows.subscribe_resource_updates
        batch = BatchSubscriptionManager().add_subscription(build(), name="a")
        with pytest.raises(UsageError, match="member 'a' already"):
            batch.add_subscription(build(), name="a")
        batch.add_subscription(build()).add_subscription(build())
        assert batch.names == ("a", "resourceUpdates", "resourceUpdates-2")
        with pytest.raises(UsageError, match="subscribe_all"):
            await anext(batch)
        live = await build().subscribe()
        batch.add_subscription(live)
        with pytest.raises(UsageError, match="in a batch already"):
            BatchSubscriptionManager().add_subscription(live)
        await batch.unsubscribe_all()
        with pytest.raises(StopAsyncIteration):
            await anext(BatchSubscriptionManager())


async def test_where_the_server_gives_no_live_signal_a_member_is_live_once_it_is_written() -> None:
    subscribed: list[bytes] = []
    over = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.accept()
        await peer.read_frame()
        peer.send_frame(TEXT, b'{"type":"connection_ack"}')
        subscribed.extend([(await peer.read_frame()).payload for _ in range(3)])
        over.set()
        await peer.read_to_end()

    async with serve(script) as port, Client(f"ws://127.0.0.1:{port}/graphql") as client:
        writes = await count_writes(client)
        batch = BatchSubscriptionManager()
        for _ in range(3):
            batch.add_subscription(client.workflows.subscribe_resource_updates())
        await batch.subscribe_all()
        assert len(writes) == 1
        async with asyncio.timeout(10):
            await over.wait()
        assert all(b'"type":"subscribe"' in message for message in subscribed)
        starting = asyncio.create_task(batch.subscription("resourceUpdates").unsubscribe())
        cancelled = asyncio.create_task(client.workflows.subscribe_resource_updates().subscribe())
        await asyncio.sleep(0)
        cancelled.cancel()
        await starting
        with pytest.raises(asyncio.CancelledError):
            await cancelled
        assert client.metrics.active_subscriptions == 2
        await batch.unsubscribe_all()


@final
class _CountedNames(dict[str, Any]):
    """Members by name that count how often a name is looked for."""

    looks = 0

    def __contains__(self, name: object) -> bool:
        self.looks += 1
        return super().__contains__(name)


async def test_naming_a_member_does_not_try_all_numbers_again() -> None:
    batch = BatchSubscriptionManager()
    batch._members = names = _CountedNames()
    async with Client("ws://127.0.0.1:1/graphql") as client:
        for _ in range(100):
            batch.add_subscription(client.workflows.subscribe_resource_updates())
    assert list(names)[-1].endswith("-100")
    assert len(names) == 100
    assert names.looks <= 300
