"""A delivery with a tracer does what any other does, and costs an event without a trace next to nothing."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any, Final, Literal, final

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from circuit_breaker_sdk.delivery.consumer import plain
from circuit_breaker_sdk.delivery.delivery import Delivery
from circuit_breaker_sdk.delivery.filters import Custom
from circuit_breaker_sdk.delivery.traced_delivery import TracedDelivery
from circuit_breaker_sdk.observability.latency import Latency, Timed
from tests.delivery.deliveries import Rig

TRACE: Final = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
AROUND: Final = 1

Event = Literal["plain", "traced", "raises", "errors", "gap", "null", "of another"]


@final
class FakeTracer:
    """Notes the spans of handlers, by what was handled when they began and ended."""

    def __init__(self, seen: list[int], *, left: int = sys.maxsize) -> None:
        """``left``: how many spans it makes."""
        self.seen = seen
        self.spans: list[tuple[str, list[int]]] = []
        self.left = left

    def handling(self, _label: str, _id: str, traceparent: str) -> AbstractContextManager[None] | None:
        self.left -= 1
        return self.span(traceparent) if self.left >= 0 else None

    @contextlib.contextmanager
    def span(self, traceparent: str) -> Iterator[None]:
        before = len(self.seen)
        try:
            yield
        finally:
            self.spans.append((traceparent, self.seen[before:]))

    def request(self, name: str, *, is_mutation: bool) -> AbstractContextManager[dict[str, str]]:
        raise AssertionError((name, is_mutation))

    def subscribing(self, label: str) -> AbstractContextManager[dict[str, str]]:
        raise AssertionError(label)


def messages_of(events: list[Event]) -> list[bytes]:
    """Return events as one read brings them, chained as far as they are to be."""
    messages = []
    for number, event in enumerate(events):
        payload: dict[str, object] = {"data": {"tick": None if event == "null" else number}}
        prev = "elsewhere" if event == "gap" else f"c{number}"
        extensions: dict[str, object] = {"resume": {"cursor": f"c{number + 1}", "prev": prev}}
        if event in ("traced", "raises"):
            extensions["traceparent"] = TRACE
        if event == "errors":
            payload["errors"] = [{"message": "in part"}]
        id_ = "00000002" if event == "of another" else "00000001"
        messages.append(
            msgspec.json.encode({"id": id_, "type": "next", "payload": {**payload, "extensions": extensions}})
        )
    return messages


def rig_of(kind: type[Delivery[int]], events: list[Event], seen: list[int]) -> Rig:
    rig = Rig(resume=True, kind=kind)
    rig.delivery.positioned("c0")

    def handle(value: int) -> None:
        seen.append(value)
        if events[value] == "raises":
            raise ValueError("not this one")

    rig.delivery.consumer.set_inline(handle)
    return rig


def run_of(rig: Rig, messages: list[bytes]) -> list[Any]:
    decode = rig.delivery.decode_next
    assert decode is not None
    return [*map(decode, messages)]


EVENTS = st.lists(
    st.sampled_from(["plain", "plain", "plain", "traced", "raises", "errors", "gap", "null", "of another"]),
    min_size=1,
    max_size=12,
)


@given(EVENTS)
def test_a_run_is_taken_as_without_a_tracer(events: list[Event]) -> None:
    async def outcome(kind: type[Delivery[int]]) -> object:
        seen: list[int] = []
        rig = rig_of(kind, events, seen)
        tracer = FakeTracer(seen)
        if kind is TracedDelivery:
            rig.delivery.consumer.tracer = tracer
        messages = messages_of(events)
        taken = rig.delivery.receive_run(run_of(rig, messages), messages, AROUND)
        found = (
            taken,
            list(seen),
            rig.delivery.received,
            rig.delivery.consumer.handled,
            rig.delivery.events_received,
            rig.delivery.stats().handler_errors,
        )
        if kind is TracedDelivery:
            traced = [n for n in range(taken) if events[n] in ("traced", "raises")]
            assert tracer.spans == [(TRACE, [n]) for n in traced]
        await rig.aclose()
        return found

    with_tracer = asyncio.run(outcome(TracedDelivery))
    assert with_tracer == asyncio.run(outcome(Delivery))


async def test_a_call_for_which_the_tracer_makes_no_span_is_that_of_the_handler_itself() -> None:
    seen: list[int] = []
    events: list[Event] = ["traced", "traced", "raises", "plain"]
    rig = rig_of(TracedDelivery, events, seen)
    rig.delivery.consumer.tracer = tracer = FakeTracer(seen, left=1)
    messages = messages_of(events)
    assert rig.delivery.receive_run(run_of(rig, messages), messages, AROUND) == len(events)
    assert (seen, tracer.spans, tracer.left) == ([0, 1, 2, 3], [(TRACE, [0])], -2)
    assert rig.delivery.stats().handler_errors == 1
    await rig.aclose()


async def test_no_span_is_asked_for_an_event_that_a_filter_keeps_back() -> None:
    seen: list[int] = []
    events: list[Event] = ["traced", "traced", "traced"]
    rig = rig_of(TracedDelivery, events, seen)
    rig.delivery.consumer.tracer = tracer = FakeTracer(seen)
    rig.delivery.consumer.add_filter(Custom(lambda value: value == 1))
    for response in run_of(rig, messages_of(events)):
        assert rig.delivery.receive(response.payload, b"")
    assert (seen, tracer.spans, sys.maxsize - tracer.left) == ([1], [(TRACE, [1])], 1)
    await rig.aclose()


@pytest.mark.parametrize("begins", [True, False])
async def test_a_handler_that_switches_the_measuring_is_not_bound_to_the_trace_of_its_event(
    begins: bool,
) -> None:
    rig = Rig(resume=True, kind=TracedDelivery)
    consumer, latency = rig.delivery.consumer, Latency()
    consumer.tracer = tracer = FakeTracer([])
    consumer.measure(None if begins else latency)

    def handle(_value: int) -> None:
        consumer.measure(latency if begins else None)

    consumer.set_inline(handle)
    rig.delivery.positioned("c0")
    for response in run_of(rig, messages_of(["traced", "plain", "plain"])):
        assert rig.delivery.receive(response.payload, b"")
    assert len(tracer.spans) == 1
    assert isinstance(consumer.inline, Timed) is begins
    assert plain(consumer.inline) is handle
    await rig.aclose()


async def test_an_event_without_a_trace_costs_a_look_at_one_field() -> None:
    events: list[Event] = ["plain"] * 100

    def counted(kind: type[Delivery[int]]) -> int:
        rig = rig_of(kind, events, [])
        rig.delivery.consumer.tracer = FakeTracer([])
        messages = messages_of(events)
        run = run_of(rig, messages)
        executed = 0

        def trace(frame, event, _argument):  # type: ignore[no-untyped-def]
            nonlocal executed
            frame.f_trace_opcodes = True
            if event == "opcode":
                executed += 1
            return trace

        before = sys.gettrace()
        sys.settrace(trace)
        try:
            assert rig.delivery.receive_run(run, messages, AROUND) == len(events)
        finally:
            sys.settrace(before)
        rig.delivery.unsubscribe()
        return executed

    assert counted(TracedDelivery) - counted(Delivery) <= 8 * len(events)
