"""Handlers of a blocking client: in order, on the thread of the caller's choice, their errors told."""

from __future__ import annotations

import contextvars
import queue
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from circuit_breaker_sdk import (
    CircuitBreakerError,
    ConnectionStateChange,
    Gap,
    HandlerError,
    SubscriptionState,
    SyncClient,
    UsageError,
)
from tests.sync.blocking_world import TICKS, world
from tests.waiting import PATIENCE_SECONDS


def test_handlers_get_every_event_in_order_on_one_thread_of_the_clients_own() -> None:
    with world() as w, SyncClient(w.url) as client:
        seen: list[int] = []
        names: set[str] = set()

        def note(tick: int) -> None:
            names.add(threading.current_thread().name)
            seen.append(tick)

        ended = threading.Event()
        ticks = client.subscribe(TICKS, type=int).on_data(note).on_complete(ended.set)
        w.ticks(*range(300))
        w.do(w.server.complete)
        assert ended.wait(PATIENCE_SECONDS)
        assert seen == list(range(300))
        assert names == {"circuit-breaker-handlers"}
        assert ticks.cursor == "fake.300"
        ticks.wait_closed(PATIENCE_SECONDS)


def test_a_handler_can_be_attached_when_a_wait_for_the_next_event_has_timed_out() -> None:
    with world() as w, SyncClient(w.url) as client, client.subscribe(TICKS, type=int) as ticks:
        with pytest.raises(TimeoutError):
            ticks.next(0.01)
        seen: queue.SimpleQueue[int] = queue.SimpleQueue()
        ticks.on_data(seen.put)
        w.ticks(1, 2)
        assert [seen.get(timeout=PATIENCE_SECONDS) for _ in range(2)] == [1, 2]


def test_an_iteration_takes_no_event_that_waits_for_a_handler() -> None:
    with world() as w, SyncClient(w.url) as client, client.subscribe(TICKS, type=int) as ticks:
        seen: queue.SimpleQueue[int] = queue.SimpleQueue()
        may_go_on = threading.Event()

        def note(tick: int) -> None:
            seen.put(tick)
            may_go_on.wait(PATIENCE_SECONDS)

        ticks.on_data(note)
        w.ticks(1, 2, 3)
        assert seen.get(timeout=PATIENCE_SECONDS) == 1
        until = time.monotonic() + PATIENCE_SECONDS
        while ticks.stats().buffered_events < 2 and time.monotonic() < until:
            time.sleep(0.01)
        with pytest.raises(UsageError, match="has handlers"):
            next(ticks)
        may_go_on.set()
        assert [seen.get(timeout=PATIENCE_SECONDS) for _ in range(2)] == [2, 3]


def test_order_is_kept_in_an_executor_with_many_threads() -> None:
    with ThreadPoolExecutor(4, thread_name_prefix="mine") as executor, world() as w:
        with SyncClient(w.url, executor=executor) as client:
            seen: list[int] = []
            names: set[str] = set()

            def note(tick: int) -> None:
                time.sleep(0.002 if tick % 2 else 0)
                names.add(threading.current_thread().name)
                seen.append(tick)

            ticks = client.subscribe(TICKS, type=int).on_data(note)
            w.ticks(*range(100))
            w.do(w.server.complete)
            ticks.wait_closed(PATIENCE_SECONDS)
            assert seen == list(range(100))
            assert all(name.startswith("mine") for name in names)
        assert executor.submit(int).result() == 0, "the caller's executor is the caller's"


def test_a_handler_that_raises_is_told_and_ends_nothing() -> None:
    with world() as w, SyncClient(w.url) as client:
        seen: list[int] = []
        errors: list[CircuitBreakerError] = []

        def fragile(tick: int) -> None:
            if tick == 1:
                raise ValueError("one")
            seen.append(tick)

        ticks = client.subscribe(TICKS, type=int).on_error(errors.append).on_data(fragile)
        w.ticks(0, 1, 2)
        w.do(w.server.complete)
        ticks.wait_closed(PATIENCE_SECONDS)
        assert seen == [0, 2]
        (error,) = errors
        assert isinstance(error, HandlerError)
        assert "fragile" in str(error)
        assert ticks.stats().handler_errors == 1


def test_what_an_iterator_did_not_take_goes_to_the_handler() -> None:
    with world() as w, SyncClient(w.url) as client:
        ticks = client.subscribe(TICKS, type=int)
        w.ticks(*range(50))
        assert [next(ticks) for _ in range(3)] == [0, 1, 2]
        seen: list[int] = []
        ticks.on_data(seen.append)
        w.do(w.server.complete)
        ticks.wait_closed(PATIENCE_SECONDS)
        assert seen == list(range(3, 50))


def test_a_handler_may_call_the_client_and_close_it() -> None:
    with world() as w:
        w.do(w.server.answer, {"health": "ok"})
        client = SyncClient(w.url)
        answers: list[str] = []

        def ask(tick: int) -> None:
            answers.append(client.server_health())
            client.close()

        client.subscribe(TICKS, type=int).on_data(ask)
        w.ticks(1, 2)
        until = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < until and any(
            t.name.startswith("circuit-breaker") for t in threading.enumerate()
        ):
            time.sleep(0.01)
        assert answers == ["ok"]
        assert not any(t.name.startswith("circuit-breaker") for t in threading.enumerate())


def test_handlers_run_in_the_context_in_which_they_were_attached() -> None:
    name: contextvars.ContextVar[str] = contextvars.ContextVar("name", default="none")
    with world() as w, SyncClient(w.url) as client:
        seen: list[str] = []
        name.set("mine")
        ticks = client.subscribe(TICKS, type=int).on_data(lambda _: seen.append(name.get()))
        name.set("other")
        w.ticks(1)
        w.do(w.server.complete)
        ticks.wait_closed(PATIENCE_SECONDS)
        assert seen == ["mine"]


def test_changes_of_the_state_and_of_the_connection_are_told() -> None:
    with world() as w, SyncClient(w.url) as client:
        states: list[SubscriptionState] = []
        changes: list[ConnectionStateChange] = []

        def fragile(change: ConnectionStateChange) -> None:
            changes.append(change)
            raise ValueError

        client.on_connection_state(fragile)
        ticks = client.subscribe(TICKS, type=int).on_state(states.append)
        w.do(w.server.drop)
        w.ticks(1)
        assert ticks.next(PATIENCE_SECONDS) == 1
        w.do(w.server.complete)
        assert list(ticks) == []
        until = time.monotonic() + PATIENCE_SECONDS
        while SubscriptionState.COMPLETED not in states and time.monotonic() < until:
            time.sleep(0.01)
        assert states[-1] is SubscriptionState.COMPLETED
        assert SubscriptionState.RECONNECTING in states
        assert len(changes) >= 3


def test_a_gap_is_told_on_the_executor_with_its_snapshot() -> None:
    with world() as w, SyncClient(w.url) as client:
        gaps: list[tuple[Gap, str]] = []
        w.ticks(1, 2, 3)
        w.do(w.server.forget)
        ticks = client.subscribe(
            TICKS,
            type=int,
            after="fake.1",
            on_gap=lambda gap: gaps.append((gap, threading.current_thread().name)),
            snapshot=lambda: "now",
        )
        w.ticks(4)
        assert ticks.next(PATIENCE_SECONDS) == 4
        ((gap, thread),) = gaps
        assert gap.snapshot == "now"
        assert thread == "circuit-breaker-handlers"


def test_an_async_handler_and_what_is_no_executor_are_refused() -> None:
    async def handler(tick: object) -> None: ...

    with world() as w, SyncClient(w.url) as client:
        with pytest.raises(UsageError, match="is async"):
            client.subscribe(TICKS).on_data(handler)
        with pytest.raises(UsageError, match="must be a function"):
            client.subscribe(TICKS).on_data(3)  # type: ignore[arg-type]  # that is the point
    with pytest.raises(UsageError, match="executor must be"):
        SyncClient("ws://localhost", executor=3)  # type: ignore[arg-type]  # that is the point
