"""The client against a real server: lifecycle, consumers, isolation, clean-up."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import inspect
import ssl
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from circuit_breaker_sdk import (
    BufferLimits,
    BufferOverflowError,
    CircuitBreakerError,
    Client,
    ClientBuilder,
    ConnectionFailed,
    Continuity,
    DecodeError,
    ErrorRecoveryPolicy,
    HandlerError,
    MessageLimits,
    OfflineQueue,
    OperationError,
    OverflowPolicy,
    SubscriptionBuilder,
    SubscriptionFailed,
    SubscriptionState,
    UsageError,
)
from circuit_breaker_sdk.types import Resource, Workflow, WorkflowEventType
from circuit_breaker_server import Server, ServerSettings
from tests.integration.workflows import create_review_workflow
from tests.waiting import until


class World:
    """A server, a client and a workflow."""

    def __init__(self, server: Server, client: Client, workflow: Workflow) -> None:
        self.server = server
        self.client = client
        self.workflow = workflow

    async def resource(self) -> Resource:
        return await self.client.workflows.create_resource(workflow_id=self.workflow.id)

    async def move(self, resource: Resource, *activities: str) -> None:
        for activity in activities:
            await self.client.workflows.execute_activity(resource_id=resource.id, activity_id=activity)


@contextlib.asynccontextmanager
async def world(path: Path) -> AsyncIterator[World]:
    async with Server(ServerSettings(port=0, data_dir=path)) as server, Client(server.url) as client:
        yield World(server, client, await create_review_workflow(client))


async def until_active(client: Client, count: int) -> None:
    await until(lambda: client.metrics.active_subscriptions == count)


async def test_what_happens_after_subscribe_returned_is_kept_for_the_first_consumer(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        resource = await w.resource()
        updates = await w.client.workflows.subscribe_resource_updates(resource_id=resource.id).subscribe()
        assert updates.state is SubscriptionState.LIVE
        await w.move(resource, "submit", "reject", "submit", "approve")
        states = [(await anext(updates)).state for _ in range(4)]
        assert states == ["review", "draft", "review", "approved"]
        assert updates.continuity is Continuity.OK
        await updates.unsubscribe()


async def test_both_clients_deliver_the_same_events(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        own = w.client.workflows.subscribe_workflow_events(workflow_id=w.workflow.id)
        consolidated = w.client.subscriptions.workflow_events().workflow_id(w.workflow.id)
        async with own as first, consolidated as second:
            resource = await w.resource()
            await w.move(resource, "submit")
            one = [await anext(first) for _ in range(3)]
            two = [await anext(second) for _ in range(3)]
        assert one == two
        assert [event.type for event in one] == [
            WorkflowEventType.RESOURCE_CREATED,
            WorkflowEventType.ACTIVITY_EXECUTED,
            WorkflowEventType.RESOURCE_STATE_CHANGED,
        ]
        assert one[2].data == {"fromState": "draft", "toState": "review", "activityId": "submit"}


async def test_a_builder_iterates_and_its_filters_go_to_the_server(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        builder = w.client.workflows.subscribe_resource_updates().workflow_id(w.workflow.id)
        events = aiter(builder.filter_state("approved"))
        waiting = asyncio.create_task(anext(events))
        await until_active(w.client, 1)
        resource = await w.resource()
        while not waiting.done():
            await w.move(resource, "submit", "approve")
            resource = await w.resource()
        assert waiting.result().state == "approved"
        del events, waiting
        gc.collect()
        await until_active(w.client, 0)


async def test_handlers_plain_async_and_object_all_receive_in_order(tmp_path: Path) -> None:
    seen: dict[str, list[str]] = {"plain": [], "async": [], "object": []}
    done = asyncio.Event()

    class Collector:
        def on_data(self, event: Resource) -> None:
            seen["object"].append(event.state)

        def on_error(self, error: CircuitBreakerError) -> None:
            raise AssertionError(error)

        def on_complete(self) -> None:
            raise AssertionError("the server does not end this stream")

    async def asynchronous(resource: Resource) -> None:
        await asyncio.sleep(0)
        seen["async"].append(resource.state)
        if resource.state == "approved":
            done.set()

    async with world(tmp_path) as w:
        resource = await w.resource()

        plain = await w.client.subscriptions.resource_updates(resource_id=resource.id).subscribe()
        plain.on_update(lambda event: seen["plain"].append(event.state))
        other = await w.client.subscriptions.resource_updates(resource_id=resource.id).subscribe()
        other.handle(Collector())
        third = await w.client.subscriptions.resource_updates(resource_id=resource.id).subscribe()
        third.on_data(asynchronous)
        await w.move(resource, "submit", "approve")
        async with asyncio.timeout(5):
            await done.wait()
    assert seen == {kind: ["review", "approved"] for kind in seen}


async def test_a_handler_that_raises_is_reported_and_ends_nothing(tmp_path: Path) -> None:
    errors: list[CircuitBreakerError] = []
    states: list[str] = []
    done = asyncio.Event()

    def handler(resource: Resource) -> None:
        states.append(resource.state)
        if resource.state == "approved":
            done.set()
        raise ValueError("no")

    async with world(tmp_path) as w:
        resource = await w.resource()
        updates = await w.client.subscriptions.resource_updates(resource_id=resource.id).subscribe()
        updates.on_error(errors.append).on_update(handler)
        await w.move(resource, "submit", "approve")
        async with asyncio.timeout(5):
            await done.wait()
        assert updates.state is SubscriptionState.LIVE
        assert updates.stats().handler_errors == 2
    assert states == ["review", "approved"]
    assert [type(error) for error in errors] == [HandlerError, HandlerError]


async def test_batches_hold_every_event_once(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        resource = await w.resource()
        async with w.client.subscriptions.resource_updates(resource_id=resource.id) as updates:
            await w.move(resource, *["submit", "reject"] * 5)
            sizes = []
            async for batch in updates.batches(max_events=4, max_wait_seconds=5):
                sizes.append(len(batch))
                if sum(sizes) >= 8:
                    break
    assert sizes == [4, 4]


async def test_leaving_the_block_ends_it_on_the_server_too(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        async with w.client.subscriptions.resource_updates() as updates:
            assert w.client.metrics.active_subscriptions == 1
        assert updates.state is SubscriptionState.UNSUBSCRIBED
        assert w.client.metrics.active_subscriptions == 0
        await updates.unsubscribe()


async def test_one_that_nobody_holds_ends_and_one_with_a_handler_lives_on(tmp_path: Path) -> None:
    seen = asyncio.Event()
    async with world(tmp_path) as w:
        held = await w.client.subscriptions.resource_updates().subscribe()
        held.on_update(lambda _: seen.set())
        dropped = await w.client.subscriptions.resource_updates().subscribe()
        assert w.client.metrics.active_subscriptions == 2
        del held, dropped
        gc.collect()
        await until_active(w.client, 1)
        await w.resource()
        async with asyncio.timeout(5):
            await seen.wait()


async def test_an_error_of_one_operation_ends_only_that_one(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        fine = await w.client.subscriptions.resource_updates(workflow_id=w.workflow.id).subscribe()
        with pytest.raises(SubscriptionFailed, match="nowhere") as unknown:
            await w.client.subscriptions.workflow_events(workflow_id="nowhere").subscribe()
        assert unknown.value.code == "NOT_FOUND"
        with pytest.raises(SubscriptionFailed, match="workflowId"):
            await w.client.subscriptions.workflow_events().subscribe()
        with pytest.raises(SubscriptionFailed, match="Syntax Error"):
            await w.client.subscribe("subscription {", type=Resource)
        with pytest.raises(SubscriptionFailed, match="noSuchField"):
            await w.client.subscribe("subscription { noSuchField }", type=Resource)
        await w.resource()
        assert (await anext(fine)).state == "draft"
        await fine.unsubscribe()


async def test_a_payload_that_does_not_fit_ends_that_subscription_with_a_decode_error(tmp_path: Path) -> None:
    class Wrong(msgspec.Struct):
        id: int

    async with world(tmp_path) as w:
        wrong = await w.client.subscribe("subscription { resourceUpdates { id } }", type=Wrong)
        fine = await w.client.subscriptions.resource_updates().subscribe()
        await w.resource()
        with pytest.raises(DecodeError, match="Expected `int`"):
            await anext(wrong)
        assert (await anext(fine)).state == "draft"
        await fine.unsubscribe()


async def test_a_full_buffer_fails_or_drops_the_oldest_as_the_policy_says(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        resource = await w.resource()
        builder = w.client.subscriptions.resource_updates(resource_id=resource.id)
        fail = BufferLimits(max_events=2, overflow=OverflowPolicy.FAIL)
        failing = await builder.buffer(fail).subscribe()
        dropping = await builder.buffer(
            BufferLimits(max_events=2, overflow=OverflowPolicy.DROP_OLDEST)
        ).subscribe()
        whole = await w.client.subscriptions.resource_updates(resource_id=resource.id).subscribe()
        await w.move(resource, "submit", "reject", "submit", "approve")
        for _ in range(4):
            await anext(whole)
        assert [(await anext(dropping)).state for _ in range(2)] == ["review", "approved"]
        assert dropping.stats().dropped == 2
        assert dropping.continuity is Continuity.GAP
        assert [(await anext(failing)).state for _ in range(2)] == ["review", "draft"]
        with pytest.raises(BufferOverflowError):
            await anext(failing)
        await whole.unsubscribe()
        await dropping.unsubscribe()


async def test_a_forbidden_activity_and_an_unknown_workflow_are_operation_errors(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        resource = await w.resource()
        with pytest.raises(OperationError) as forbidden:
            await w.move(resource, "approve")
        assert forbidden.value.code == "ACTIVITY_NOT_ALLOWED"
        with pytest.raises(OperationError) as unknown:
            await w.client.workflows.create_resource(workflow_id="nowhere")
        assert unknown.value.code == "NOT_FOUND"


async def test_every_workflow_query_answers_typed(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        workflows = w.client.workflows
        resource = await workflows.create_resource(
            workflow_id=w.workflow.id, data={"n": 1}, metadata={"m": 2}
        )
        assert await workflows.workflow(id=w.workflow.id) == w.workflow
        assert await workflows.workflow(id="nowhere") is None
        assert [found.id for found in await workflows.workflows()] == [w.workflow.id]
        assert await workflows.resource(id=resource.id) == resource
        assert [found.id for found in await workflows.resources()] == [resource.id]
        assert [found.id for found in await workflows.resources(workflow_id=w.workflow.id)] == [resource.id]
        activities = await workflows.available_activities(resource_id=resource.id)
        assert [activity.id for activity in activities] == ["submit"]
        review = await workflows.state(workflow_id=w.workflow.id, state_id="review")
        assert review is not None
        assert set(review.allowed_transitions) == {"draft", "approved"}
        changed = await workflows.update_state(workflow_id=w.workflow.id, state_id="review", name="Reading")
        assert changed.name == "Reading"
        names = [state.name for state in await workflows.workflow_states(workflow_id=w.workflow.id)]
        assert names == ["Draft", "Reading", "Approved"]


async def test_a_closed_client_refuses_and_closing_twice_is_fine(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        client = Client(w.server.url, token="secret-token")
        updates = await client.subscriptions.resource_updates().subscribe()
        assert "secret-token" not in repr(client) + repr(updates)
        await client.aclose()
        await client.aclose()
        assert updates.state is SubscriptionState.UNSUBSCRIBED
        with pytest.raises(UsageError, match="closed"):
            await client.subscriptions.resource_updates().subscribe()
        with pytest.raises(UsageError, match="closed"):
            await client.workflows.workflows()


async def test_without_retries_a_lost_connection_ends_its_subscriptions(
    tmp_path: Path,
) -> None:
    server = Server(ServerSettings(port=0, data_dir=tmp_path))
    await server.start()
    async with Client(server.url, recovery=ErrorRecoveryPolicy(max_retries=0)) as client:
        updates = await client.subscriptions.resource_updates().subscribe()
        await server.aclose()
        with pytest.raises(CircuitBreakerError, match="1012"):
            await anext(updates)
        assert updates.state is SubscriptionState.FAILED


def test_a_builder_needs_a_base_url_and_makes_a_client() -> None:
    with pytest.raises(UsageError, match="base_url"):
        Client.builder().build()
    client = Client.builder().base_url("http://localhost:4000").token("t").header("X-A", "b").build()
    assert client.url == "http://localhost:4000"


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"url": None}, "URL is a text"),
        ({"url": 5}, "URL is a text"),
        ({"url": []}, "needs a URL"),
        ({"url": ["ws://localhost", None]}, "URL is a text"),
        ({"token": 5}, "token is a text"),
        ({"headers": ["X: y"]}, "headers must be a mapping"),
        ({"headers": {"X": 5}}, "header 'X'"),
        ({"headers": {5: "x"}}, "no name for an HTTP header"),
        ({"connection_params": "x"}, "connection_params must be a mapping"),
        ({"ssl": False}, "ssl must be an ssl.SSLContext or None, not False"),
        ({"ssl": True}, "ssl must be an ssl.SSLContext or None, not True"),
        ({"ssl": 0}, "ssl must be an ssl.SSLContext or None, not 0"),
        ({"ssl": "ca.pem"}, "create_default_context"),
        ({"ssl": ""}, "ssl must be an ssl.SSLContext"),
        ({"ssl": Path("ca.pem")}, "ssl must be an ssl.SSLContext"),
        ({"critical": "no"}, "critical must be of type bool"),
        ({"timeouts": 5}, "timeouts must be of type Timeouts, not int"),
        ({"buffer": 5}, "buffer must be of type BufferLimits"),
        ({"limits": "x"}, "limits must be of type MessageLimits"),
        ({"recovery": 3}, "recovery must be of type ErrorRecoveryPolicy"),
        ({"circuit_breaker": 3}, "circuit_breaker must be of type CircuitBreakerPolicy"),
        ({"heartbeat": 3}, "heartbeat must be of type Heartbeat"),
        ({"offline_queue": 3}, "offline_queue must be of type OfflineQueue"),
        ({"max_buffered_bytes": "x"}, "max_buffered_bytes must be of type int"),
        ({"max_buffered_bytes": 0}, "max_buffered_bytes must be greater than 0"),
    ],
)
def test_an_argument_of_a_wrong_type_is_named(arguments: dict[str, Any], named: str) -> None:
    with pytest.raises(UsageError, match=named):
        Client(**{"url": "ws://localhost/graphql", **arguments})


async def test_what_is_no_document_or_no_variables_is_refused_before_anything_is_sent(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        running = await w.client.subscriptions.resource_updates().subscribe()
        for document in (None, 5, "", "  "):
            with pytest.raises(UsageError, match="document must be a text"):
                await w.client.subscribe(document, type=int)  # type: ignore[arg-type]  # that is the point
            with pytest.raises(UsageError, match="document must be a text"):
                await w.client.execute(document, type=int)  # type: ignore[arg-type]  # as above
        with pytest.raises(UsageError, match="variables must be a mapping"):
            await w.client.execute("{ health }", ["x"], type=str)  # type: ignore[call-overload]  # as above
        assert running.state == "live"


async def test_without_a_type_events_and_data_are_plain_json(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        assert await w.client.execute("{ health }") == {"health": "ok"}
        async with w.client.subscribe("subscription { resourceUpdates { id data } }") as updates:
            resource = await w.client.workflows.create_resource(workflow_id=w.workflow.id, data={"n": 1})
            assert await anext(updates) == {"id": resource.id, "data": {"n": 1}}


async def test_a_document_is_awaited_entered_and_iterated_like_a_domains_stream(tmp_path: Path) -> None:
    document = "subscription { resourceUpdates { state } }"
    async with world(tmp_path) as w:
        makes: list[Callable[[], SubscriptionBuilder[Any, Any]]] = [
            lambda: w.client.subscribe(document),
            w.client.workflows.subscribe_resource_updates,
        ]
        for make in makes:
            builder = make()
            assert isinstance(builder, SubscriptionBuilder)
            awaited = await builder
            async with make() as entered:
                iterator = aiter(make())
                waiting = asyncio.ensure_future(anext(iterator))
                await until_active(w.client, 3)
                await w.resource()
                events = [await anext(awaited), await anext(entered), await waiting]
            assert [getattr(e, "state", None) or e["state"] for e in events] == ["draft"] * 3
            await awaited.unsubscribe()
            del iterator, waiting
            gc.collect()
            await until_active(w.client, 0)


@pytest.mark.parametrize("type_", [UsageError, 5, "int", lambda: 1, list[Path | UsageError]])
def test_a_type_that_cannot_be_decoded_is_refused_at_subscribe(type_: Any) -> None:
    client = Client("ws://127.0.0.1:1/graphql")
    with pytest.raises(UsageError, match="type="):
        _ = client.subscribe("subscription { tick }", type=type_)


async def test_execute_refuses_another_way_with_errors() -> None:
    async with Client("ws://127.0.0.1:1/graphql") as client:
        with pytest.raises(UsageError, match='"raise" or "return"'):
            await client.execute("{ x }", errors="ignore")  # type: ignore[call-overload]  # that is the point


def test_a_client_used_on_a_second_event_loop_says_so() -> None:
    client = Client("ws://127.0.0.1:1/graphql")
    with pytest.raises(ConnectionFailed):
        asyncio.run(client.subscriptions.resource_updates().subscribe())
    with pytest.raises(UsageError, match="make one for each loop"):
        asyncio.run(client.subscriptions.resource_updates().subscribe())


def test_the_builder_sets_every_argument_of_the_constructor_and_no_other() -> None:
    other_names = {"base_url": "url", "header": "headers", "connection_param": "connection_params"}
    methods = {name for name in vars(ClientBuilder) if not name.startswith("_")} - {"build"}
    arguments = set(inspect.signature(Client).parameters)
    assert {other_names.get(name, name) for name in methods} == arguments


def test_what_the_builder_is_given_reaches_the_constructor() -> None:
    given: dict[str, object] = {}

    def make(url: str, **arguments: object) -> dict[str, object]:
        given.update(arguments, url=url)
        return given

    context, queue = ssl.create_default_context(), OfflineQueue()
    builder = ClientBuilder(make).base_url("ws://localhost").ssl(context).critical().offline_queue(queue)
    builder.cursor_store("cursors.json").limits(MessageLimits()).max_buffered_bytes(1).header("A", "b")
    assert builder.connection_param("c", 1).build() == {
        "url": "ws://localhost",
        "ssl": context,
        "critical": True,
        "offline_queue": queue,
        "cursor_store": "cursors.json",
        "limits": MessageLimits(),
        "max_buffered_bytes": 1,
        "headers": {"A": "b"},
        "connection_params": {"c": 1},
    }
