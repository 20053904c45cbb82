"""Operations over WebSockets in the traces of their callers, as starts of subscriptions by any transport."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import aiohttp
import msgspec
import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.sampling import ALWAYS_ON, ParentBased
from opentelemetry.trace import SpanKind, StatusCode

from circuit_breaker_sdk import Client, GapError, SubscriptionError
from circuit_breaker_sdk.observability.otel_tracing import OpenTelemetryTracer
from circuit_breaker_sdk.streams import ResumeByExtension
from circuit_breaker_server import Server, ServerSettings
from circuit_breaker_server.otel_tracing import OpenTelemetryTracer as ServerTracer
from circuit_breaker_server.tracing import trace_context, trace_context_of
from tests.connections.raw_server import acknowledge, read_message, stay
from tests.integration.workflows import create_review_workflow, number_of
from tests.observability.spans import Traces, trace_id
from tests.server.operations import CREATE_RESOURCE
from tests.transports.peers import Peer, serve
from tests.waiting import PATIENCE_SECONDS, until

TRACE: Final = 0x0AF7651916CD43DD8448EB211C80319C
PARENT: Final = 0xB7AD6B7169203331
SAMPLED: Final = f"00-{TRACE:032x}-{PARENT:016x}-01"
NOT_SAMPLED: Final = f"00-{TRACE:032x}-{PARENT:016x}-00"
PROTOCOLS: Final = [("graphql-transport-ws", "subscribe", "next"), ("graphql-ws", "start", "data")]
SUBSCRIPTION: Final = "subscription($id: String) { resourceUpdates(resourceId: $id) { id } }"


@pytest.fixture
def traces() -> Iterator[Traces]:
    found = Traces(sampler=ParentBased(ALWAYS_ON))
    yield found
    found.provider.shutdown()


async def asked(
    url: str, protocol: tuple[str, str, str], query: str, variables: object, extensions: object
) -> Any:
    """Ask over a socket, and return the first answer, or ``None`` where a subscription is live."""
    name, begin, answer = protocol
    async with (
        aiohttp.ClientSession() as http,
        http.ws_connect(url, protocols=[name], timeout=aiohttp.ClientWSTimeout(PATIENCE_SECONDS)) as socket,
    ):
        await socket.send_json({"type": "connection_init", "payload": {"resume": {"version": 1}}})
        payload = {"query": query, "variables": variables, "extensions": extensions}
        while (await socket.receive_json())["type"] != "connection_ack":
            pass
        await socket.send_json({"id": "1", "type": begin, "payload": payload})
        while True:
            message = await socket.receive_json()
            if message.get("id") == "1":
                assert message["type"] == answer, message
                return message["payload"]
            if message["type"] == "ping":
                return None


def parent_id(span: ReadableSpan) -> int:
    assert span.parent is not None
    return int(span.parent.span_id)


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_a_mutation_over_a_socket_has_the_same_spans_as_one_over_http(
    tmp_path: Path, traces: Traces, protocol: tuple[str, str, str]
) -> None:
    seen: list[object] = []
    async with (
        Server(ServerSettings(port=0, data_dir=tmp_path), tracer=ServerTracer(traces.provider)) as server,
        Client(server.url, tracer=OpenTelemetryTracer(traces.provider)) as client,
    ):
        workflow = (await create_review_workflow(client)).id
        updates = await client.workflows.subscribe_resource_updates(workflow_id=workflow).subscribe()
        updates.on_data(lambda resource: seen.append(number_of(resource)))
        given = {"input": {"workflowId": workflow, "data": {"n": 1}}}
        answer = await asked(server.url, protocol, CREATE_RESOURCE, given, {"traceparent": SAMPLED})
        assert "errors" not in answer
        await until(lambda: seen == [1])
        await until(lambda: traces.named("deliver"))
    spans = {span.name: span for span in traces.exporter.get_finished_spans() if trace_id(span) == TRACE}
    assert sorted(spans) == ["append", "deliver", "handle resourceUpdates", "mutation", "project"]
    mutation = spans.pop("mutation")
    assert (parent_id(mutation), mutation.kind) == (PARENT, SpanKind.SERVER)
    assert mutation.context is not None
    assert {parent_id(span) for span in spans.values()} == {mutation.context.span_id}


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_a_query_over_a_socket_is_in_the_trace_of_its_caller(
    tmp_path: Path, traces: Traces, protocol: tuple[str, str, str]
) -> None:
    async with Server(
        ServerSettings(port=0, data_dir=tmp_path), tracer=ServerTracer(traces.provider)
    ) as server:
        extensions = {"traceparent": SAMPLED, "tracestate": "vendor=value"}
        await asked(server.url, protocol, "query Health { health }", None, extensions)
    (span,) = traces.exporter.get_finished_spans()
    assert (span.name, trace_id(span), parent_id(span)) == ("query", TRACE, PARENT)
    assert span.context is not None
    assert span.context.trace_state["vendor"] == "value"


async def test_without_a_tracer_the_server_keeps_the_trace_of_a_mutation_over_a_socket(
    tmp_path: Path,
) -> None:
    async with Server(ServerSettings(port=0, data_dir=tmp_path)) as server, Client(server.url) as client:
        workflow = (await create_review_workflow(client)).id
        given = {"input": {"workflowId": workflow, "data": {"n": 1}}}
        await asked(server.url, PROTOCOLS[0], CREATE_RESOURCE, given, {"traceparent": NOT_SAMPLED})
        assert NOT_SAMPLED[3:35].encode() not in (tmp_path / "events.db-wal").read_bytes()
        await asked(server.url, PROTOCOLS[0], CREATE_RESOURCE, given, {"traceparent": SAMPLED})
        assert SAMPLED.encode() in (tmp_path / "events.db-wal").read_bytes()


@pytest.mark.parametrize("way", ["header", "extensions", "socket"])
async def test_a_caller_that_does_not_sample_gets_no_trace_from_the_server(
    tmp_path: Path, traces: Traces, way: str
) -> None:
    async with Server(
        ServerSettings(port=0, data_dir=tmp_path), tracer=ServerTracer(traces.provider)
    ) as server:
        async with Client(server.url) as client:
            workflow = (await create_review_workflow(client)).id
        traces.exporter.clear()
        given = {"input": {"workflowId": workflow, "data": {"n": 1}}}
        if way == "socket":
            await asked(server.url, PROTOCOLS[0], CREATE_RESOURCE, given, {"traceparent": NOT_SAMPLED})
        else:
            body: dict[str, object] = {"query": CREATE_RESOURCE, "variables": given}
            headers = {"traceparent": NOT_SAMPLED} if way == "header" else {}
            if way == "extensions":
                body["extensions"] = {"traceparent": NOT_SAMPLED}
            async with (
                aiohttp.ClientSession() as http,
                http.post(server.url.replace("ws", "http", 1), json=body, headers=headers) as answer,
            ):
                assert "errors" not in await answer.json(content_type=None)
    assert traces.exporter.get_finished_spans() == ()


@pytest.mark.parametrize("transport", ["websocket", "sse", "poll"])
async def test_the_start_of_a_subscription_is_in_the_trace_of_its_caller(
    tmp_path: Path, traces: Traces, transport: str
) -> None:
    async with (
        Server(ServerSettings(port=0, data_dir=tmp_path), tracer=ServerTracer(traces.provider)) as server,
        Client(server.url, tracer=OpenTelemetryTracer(traces.provider), transports=(transport,)) as client,
    ):
        with traces.provider.get_tracer("application").start_as_current_span("application"):
            _updates = await client.subscriptions.resource_updates().subscribe()
        await until(lambda: len(traces.named("subscription resourceUpdates")) == 2)
        (application,) = traces.named("application")
        by_kind = {span.kind: span for span in traces.named("subscription resourceUpdates")}
        ours, theirs = by_kind[SpanKind.CLIENT], by_kind[SpanKind.SERVER]
        assert ours.parent == application.context
        assert ours.context is not None
        assert parent_id(theirs) == ours.context.span_id


async def test_a_subscription_by_header_is_in_the_trace_of_its_caller(tmp_path: Path, traces: Traces) -> None:
    async with Server(
        ServerSettings(port=0, data_dir=tmp_path), tracer=ServerTracer(traces.provider)
    ) as server:
        headers = {"traceparent": SAMPLED, "Accept": "text/event-stream", "Last-Event-ID": ""}
        async with (
            aiohttp.ClientSession() as http,
            http.post(
                server.url.replace("ws", "http", 1), json={"query": SUBSCRIPTION}, headers=headers
            ) as answer,
        ):
            assert answer.status == 200
            await until(lambda: traces.named("subscription resourceUpdates"))
    (span,) = traces.named("subscription resourceUpdates")
    assert (trace_id(span), parent_id(span)) == (TRACE, PARENT)


async def test_a_subscription_that_is_refused_has_an_error_in_both_spans(
    tmp_path: Path, traces: Traces
) -> None:
    async with (
        Server(ServerSettings(port=0, data_dir=tmp_path), tracer=ServerTracer(traces.provider)) as server,
        Client(server.url, tracer=OpenTelemetryTracer(traces.provider)) as client,
    ):
        with pytest.raises((GapError, SubscriptionError)):
            await client.subscriptions.resource_updates().after("no cursor").subscribe()
    both = traces.named("subscription resourceUpdates")
    assert [span.status.status_code for span in both] == [StatusCode.ERROR, StatusCode.ERROR]


async def test_what_goes_on_behind_a_start_is_not_in_its_trace(tmp_path: Path, traces: Traces) -> None:
    """The connection that a start opens outlives it, as do the tasks of it."""
    tracer = traces.provider.get_tracer("application")

    def handle(_event: object) -> None:
        with tracer.start_as_current_span("inside"):
            pass

    async with (
        Server(ServerSettings(port=0, data_dir=tmp_path)) as server,
        Client(server.url, tracer=OpenTelemetryTracer(traces.provider)) as client,
        Client(server.url) as writer,
    ):
        workflow = (await create_review_workflow(writer)).id
        updates = await client.workflows.subscribe_resource_updates(workflow_id=workflow).subscribe()
        updates.on_data(handle)
        await writer.workflows.create_resource(workflow_id=workflow, data={"n": 1})
        await until(lambda: traces.named("inside"))
    (inside,) = traces.named("inside")
    assert inside.parent is None


@pytest.mark.parametrize(
    ("extensions", "context"),
    [
        ({"traceparent": SAMPLED}, {"traceparent": SAMPLED}),
        ({"traceparent": NOT_SAMPLED}, {"traceparent": NOT_SAMPLED}),
        (
            {"traceparent": SAMPLED, "tracestate": "a=b", "other": 1},
            {"traceparent": SAMPLED, "tracestate": "a=b"},
        ),
        ({"traceparent": SAMPLED, "tracestate": "x" * 513}, {"traceparent": SAMPLED}),
        ({"traceparent": SAMPLED, "tracestate": 7}, {"traceparent": SAMPLED}),
        ({"traceparent": 7}, {}),
        ({"traceparent": "x", "tracestate": "a=b"}, {}),
        ({"tracestate": "a=b"}, {}),
        ({}, {}),
        (None, {}),
    ],
)
def test_what_is_no_trace_context_is_left_out(
    extensions: dict[str, object] | None, context: dict[str, str]
) -> None:
    assert trace_context_of(extensions) == context
    assert trace_context((extensions or {}).get("traceparent"), None).keys() <= {"traceparent"}


async def test_a_server_with_cursors_of_its_own_is_told_the_trace_beside_them(traces: Traces) -> None:
    asked: list[dict[str, Any]] = []

    async def server(peer: Peer) -> None:
        await acknowledge(peer, None)
        asked.append(msgspec.convert(await read_message(peer), dict[str, Any]))
        await stay(peer)

    async with (
        serve(server) as port,
        Client(f"ws://127.0.0.1:{port}/graphql", tracer=OpenTelemetryTracer(traces.provider)) as client,
    ):
        _ticks = await client.subscribe("subscription { tick }", type=int, resume=ResumeByExtension())
        await until(lambda: asked)
    (span,) = traces.exporter.get_finished_spans()
    extensions = asked[0]["payload"]["extensions"]
    assert extensions["delivery-guarantee"] == "cursor"
    assert f"-{trace_id(span):032x}-" in extensions["traceparent"]
