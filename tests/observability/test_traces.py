"""From a mutation to the handler of its event in one trace, also across a resume; nothing where it is off."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import aiohttp
import msgspec
import pytest
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ParentBased
from opentelemetry.trace import StatusCode

from circuit_breaker_sdk import BufferLimits, Client, ErrorRecoveryPolicy
from circuit_breaker_sdk.observability import otel_tracing
from circuit_breaker_sdk.observability.otel_tracing import OpenTelemetryTracer
from circuit_breaker_sdk.testing import FaultProxy
from circuit_breaker_sdk.types import Resource
from circuit_breaker_server import Server, ServerSettings
from circuit_breaker_server.otel_tracing import OpenTelemetryTracer as ServerTracer
from circuit_breaker_server.tracing import sampled
from tests.integration.workflows import create_review_workflow, number_of
from tests.observability.spans import Traces, create, trace_id
from tests.waiting import until


@pytest.fixture
def traces() -> Iterator[Traces]:
    found = Traces()
    yield found
    found.provider.shutdown()


@pytest.mark.parametrize(
    ("transport", "is_async"),
    [("websocket", False), ("websocket", True), ("sse", False), ("sse", True), ("poll", False)],
)
async def test_a_handler_runs_in_the_trace_of_the_mutation_also_across_a_resume(
    tmp_path: Path, traces: Traces, transport: str, is_async: bool
) -> None:
    seen: list[object] = []
    inside: list[int] = []
    tracer = traces.provider.get_tracer("application")

    def note(resource: Resource) -> None:
        with tracer.start_as_current_span("application"):
            seen.append(number_of(resource))

    async def note_later(resource: Resource) -> None:
        await asyncio.sleep(0)
        note(resource)

    settings = ServerSettings(port=0, data_dir=tmp_path)
    async with (
        Server(settings, tracer=ServerTracer(traces.provider)) as server,
        FaultProxy("127.0.0.1", server.port) as proxy,
        Client(
            f"http://127.0.0.1:{proxy.port}/graphql",
            tracer=OpenTelemetryTracer(traces.provider),
            transports=(transport,),
            recovery=ErrorRecoveryPolicy(base_delay=0.01, max_delay=0.05),
        ) as client,
        Client(server.url, tracer=OpenTelemetryTracer(traces.provider)) as writer,
    ):
        workflow = (await create_review_workflow(writer)).id
        updates = await client.workflows.subscribe_resource_updates(workflow_id=workflow).subscribe()
        updates.on_data(note_later if is_async else note)
        await create(writer, workflow, 1)
        await until(lambda: seen == [1])
        proxy.refuses = True
        proxy.cut()
        await create(writer, workflow, 2, 3)
        proxy.refuses = False
        await until(lambda: seen == [1, 2, 3])
        await create(writer, workflow, 4)
        await until(lambda: seen == [1, 2, 3, 4])
        await until(lambda: len(traces.named("application")) == 4)
    mutations = traces.named("mutation CreateResource")
    assert len(mutations) == 8  # the client's and the server's
    by_trace = {trace_id(span): span for span in mutations}
    assert len(by_trace) == 4
    for name, at_least in (("append", 4), ("project", 4), ("deliver", 4), ("handle resourceUpdates", 4)):
        spans = [span for span in traces.named(name) if trace_id(span) in by_trace]
        assert len(spans) == at_least, name
        assert {trace_id(span) for span in spans} == set(by_trace)
    for span in traces.named("handle resourceUpdates"):
        (link,) = span.links
        assert link.context.trace_id == trace_id(span)
        inside += [trace_id(each) for each in traces.named("application") if each.parent == span.context]
    assert sorted(inside) == sorted(by_trace)


@pytest.mark.parametrize("transport", ["websocket", "sse", "poll"])
async def test_an_iteration_is_told_the_trace_of_each_event(
    tmp_path: Path, traces: Traces, transport: str
) -> None:
    async with (
        Server(ServerSettings(port=0, data_dir=tmp_path)) as server,
        Client(server.url, tracer=OpenTelemetryTracer(traces.provider), transports=(transport,)) as client,
        Client(server.url, transports=(transport,)) as plain,
    ):
        workflow = (await create_review_workflow(client)).id
        updates = await client.workflows.subscribe_resource_updates(workflow_id=workflow).subscribe()
        beside = await plain.workflows.subscribe_resource_updates(workflow_id=workflow).subscribe()
        await create(client, workflow, 1)
        await create(plain, workflow, 2)
        assert number_of(await anext(updates)) == 1
        (request,) = traces.named("mutation CreateResource")
        assert updates.traceparent is not None
        assert f"-{trace_id(request):032x}-" in updates.traceparent
        assert number_of(await anext(updates)) == 2
        assert [updates.traceparent, beside.traceparent] == [None, None]
        assert number_of(await anext(beside)) == 1
        assert not beside.traceparent
        # The server itself makes none.
        assert {span.name for span in traces.exporter.get_finished_spans()} == {
            "mutation CreateWorkflow",
            "mutation CreateResource",
            "subscription resourceUpdates",
        }


async def test_events_that_were_kept_before_anybody_asked_have_their_traces(
    tmp_path: Path, traces: Traces
) -> None:
    async with Server(ServerSettings(port=0, data_dir=tmp_path, ring_size=4)) as server:
        async with Client(server.url, tracer=OpenTelemetryTracer(traces.provider)) as writer:
            workflow = (await create_review_workflow(writer)).id
            await create(writer, workflow, *range(10))
        async with Client(server.url, tracer=OpenTelemetryTracer(traces.provider)) as reader:
            builder = reader.workflows.subscribe_resource_updates(workflow_id=workflow)
            updates = await builder.buffer(BufferLimits(max_events=3)).from_beginning().subscribe()
            found = set()
            for n in range(10):
                assert number_of(await anext(updates)) == n
                assert updates.traceparent is not None
                found.add(updates.traceparent)
            assert len(found) == 10


@pytest.mark.parametrize("asks", [True, False])
async def test_an_event_stream_has_traces_only_for_a_client_that_asks(
    tmp_path: Path, traces: Traces, asks: bool
) -> None:
    """One operation on a stream of its own, whose cursors are also the ids of its events."""
    headers = {"Accept": "text/event-stream", "Resume-Version": "1"}
    async with (
        Server(ServerSettings(port=0, data_dir=tmp_path)) as server,
        Client(server.url, tracer=OpenTelemetryTracer(traces.provider)) as writer,
        aiohttp.ClientSession(headers={**headers, "Resume-Traces": "1"} if asks else headers) as http,
    ):
        workflow = (await create_review_workflow(writer)).id
        document = "subscription { resourceUpdates { id } }"
        url = server.url.replace("ws", "http", 1)
        async with http.post(url, json={"query": document}) as stream:
            assert b"id: " in await stream.content.readline()
            await create(writer, workflow, 1)
            while not (line := await stream.content.readline()).startswith(b"data: {"):
                pass
        event = msgspec.json.decode(line.removeprefix(b"data: "))
        (request,) = traces.named("mutation CreateResource")
        told = event["extensions"].get("traceparent", "")
        assert (f"-{trace_id(request):032x}-" in told) is asks


async def test_what_is_not_sampled_leaves_no_trace(tmp_path: Path) -> None:
    off = Traces(sampler=ParentBased(ALWAYS_OFF))
    seen: list[object] = []
    async with (
        Server(ServerSettings(port=0, data_dir=tmp_path), tracer=ServerTracer(off.provider)) as server,
        Client(server.url, tracer=OpenTelemetryTracer(off.provider)) as client,
    ):
        workflow = (await create_review_workflow(client)).id
        updates = await client.workflows.subscribe_resource_updates(workflow_id=workflow).subscribe()
        updates.on_data(lambda resource: seen.append(number_of(resource)))
        await create(client, workflow, 1)
        await until(lambda: seen == [1])
    assert off.exporter.get_finished_spans() == ()
    assert b"traceparent" not in (tmp_path / "events.db").read_bytes()


@pytest.mark.parametrize(
    ("traceparent", "spans"),
    [
        ("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", 1),
        ("01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", 1),
        ("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00", 0),
        ("00-00000000000000000000000000000000-b7ad6b7169203331-01", 0),
        ("00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01", 0),
        ("what a foreign server writes", 0),
        ("", 0),
    ],
)
def test_only_a_trace_that_is_one_and_is_sampled_has_the_span_of_a_handler(
    traces: Traces, traceparent: str, spans: int
) -> None:
    span = OpenTelemetryTracer(traces.provider).handling("ticks", "1", traceparent)
    with span or nullcontext():
        pass
    assert len(traces.named("handle ticks")) == spans


async def test_a_handler_that_fails_is_named_and_its_span_says_so(tmp_path: Path, traces: Traces) -> None:
    errors: list[str] = []

    def fail(_resource: Resource) -> None:
        raise ValueError("not this one")

    async with (
        Server(ServerSettings(port=0, data_dir=tmp_path)) as server,
        Client(server.url, tracer=OpenTelemetryTracer(traces.provider)) as client,
    ):
        workflow = (await create_review_workflow(client)).id
        updates = await client.workflows.subscribe_resource_updates(workflow_id=workflow).subscribe()
        updates.on_error(lambda error: errors.append(str(error))).on_data(fail)
        await create(client, workflow, 1)
        await until(lambda: errors)
    assert "fail" in errors[0]
    (span,) = traces.named("handle resourceUpdates")
    assert [event.name for event in span.events] == ["exception"]
    assert (span.status.status_code, span.status.description) == (
        StatusCode.ERROR,
        "ValueError: not this one",
    )


@pytest.mark.parametrize(
    ("traceparent", "is_kept"),
    [
        ("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", True),
        ("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-03", True),
        ("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00", False),
        ("00-00000000000000000000000000000000-b7ad6b7169203331-01", False),
        ("00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01", False),
        ("01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", False),
        ("00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01", False),
        ("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-x", False),
        ('","x":"', False),
        ("", False),
        (None, False),
    ],
)
def test_what_is_no_trace_or_is_not_recorded_is_not_kept(traceparent: str | None, is_kept: bool) -> None:
    assert sampled(traceparent) == (traceparent if is_kept else None)


def test_a_flood_of_traced_events_has_spans_up_to_a_bound_and_the_rest_is_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    traces, now = Traces(), 100.0
    monkeypatch.setattr(otel_tracing, "monotonic", lambda: now)
    tracer = OpenTelemetryTracer(traces.provider, max_handler_spans_per_second=3)
    traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    for moment, made, skipped in ((100.0, 3, 7), (100.9, 3, 17), (101.0, 6, 24), (205.5, 9, 31)):
        now = moment
        for _ in range(10):
            with tracer.handling("ticks", "1", traceparent) or nullcontext():
                pass
        assert (len(traces.named("handle ticks")), tracer.skipped_handler_spans) == (made, skipped)
    with pytest.raises(ValueError, match="max_handler_spans_per_second must be above 0, not 0"):
        OpenTelemetryTracer(traces.provider, max_handler_spans_per_second=0)
