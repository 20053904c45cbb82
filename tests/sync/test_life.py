"""The client's life: its thread begins with the first call; whatever ends the client leaves nothing."""

from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable

import pytest

from circuit_breaker_sdk import ConnectionState, SyncClient, SyncSubscription, UsageError
from tests.sync.blocking_world import TICKS, World, world
from tests.waiting import PATIENCE_SECONDS


def threads() -> set[str]:
    """Return the names of the client's threads that run."""
    return {t.name for t in threading.enumerate() if t.name.startswith("circuit-breaker")}


def wait_until_no_thread() -> None:
    until = time.monotonic() + PATIENCE_SECONDS
    while threads() and time.monotonic() < until:
        time.sleep(0.01)
    assert threads() == set()


def test_the_end_of_the_block_ends_subscriptions_connections_and_threads() -> None:
    with world() as w:
        before = set(threading.enumerate())
        with SyncClient(w.url) as client:
            assert threads() == set(), "it starts with the first call"
            ticks = client.subscribe(TICKS, type=int)
            client.subscribe(TICKS, type=int).on_data(print)
            w.ticks(1)
            connected = client.state
            assert connected is ConnectionState.CONNECTED
        assert set(threading.enumerate()) == before
        assert list(ticks) == [], "what was not taken is gone"
        assert ticks.state.is_end
        assert client.state is not ConnectionState.CONNECTED
        assert "SyncClient ws://" in repr(client)
        ticks.close()
        client.close()
        for _ in range(100):
            if not w.do(lambda: w.server.connections):
                break
            time.sleep(0.02)
        assert w.do(lambda: w.server.connections) == 0


def test_after_the_end_every_use_says_so() -> None:
    client = SyncClient("ws://127.0.0.1:9/graphql")
    client.close()
    uses: list[Callable[[], object]] = [
        lambda: client.execute("{ x }"),
        lambda: client.subscribe(TICKS),
        client.workflows.workflows,
        lambda: client.workflows.subscribe_workflow_events("w-1"),
        client.__enter__,
    ]
    for use in uses:
        with pytest.raises(UsageError, match="the client is closed"):
            use()


def iterating(ticks: SyncSubscription[int], found: list[object]) -> threading.Thread:
    """Iterate in a thread, to the end."""

    def run() -> None:
        try:
            found.extend(ticks)
            found.append("end")
        except Exception as error:  # noqa: BLE001 (the test looks at it)
            found.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    time.sleep(0.1)
    return thread


@pytest.mark.parametrize("what", ["subscription", "client"])
def test_closing_from_another_thread_ends_an_iteration(what: str) -> None:
    with world() as w, SyncClient(w.url) as client:
        ticks = client.subscribe(TICKS, type=int)
        found: list[object] = []
        thread = iterating(ticks, found)
        w.ticks(1)
        (ticks if what == "subscription" else client).close()
        thread.join(PATIENCE_SECONDS)
        assert found in ([1, "end"], ["end"])


def test_a_call_that_waits_when_the_client_is_closed_is_told() -> None:
    with world() as w:
        w.server.is_silent = True
        client = SyncClient(w.url)
        found: list[BaseException] = []

        def call() -> None:
            try:
                client.subscribe(TICKS)
            except Exception as error:  # noqa: BLE001 (the test looks at it)
                found.append(error)

        thread = threading.Thread(target=call)
        thread.start()
        time.sleep(0.2)
        client.close()
        thread.join(PATIENCE_SECONDS)
        assert len(found) == 1, "it ended"


def test_many_threads_use_one_client_at_once() -> None:
    with world() as w, SyncClient(w.url) as client:
        w.do(w.server.answer, {"health": "ok"})
        found: list[list[int]] = []

        def follow() -> None:
            with client.subscribe(TICKS, type=int, after="fake.0") as ticks:
                found.append([ticks.next(PATIENCE_SECONDS) for _ in range(500)])

        def ask() -> None:
            for _ in range(20):
                assert client.server_health() == "ok"
            found.append(list(range(500)))

        w.ticks(*range(250))
        running = [threading.Thread(target=t) for t in (follow, follow, ask, follow, ask, follow)]
        for thread in running:
            thread.start()
        w.ticks(*range(250, 500))
        for thread in running:
            thread.join(PATIENCE_SECONDS)
        assert found == [list(range(500))] * 6


async def test_it_works_inside_a_running_loop() -> None:
    with world() as w, SyncClient(w.url) as client, client.subscribe(TICKS, type=int) as ticks:
        w.ticks(1)
        assert next(ticks) == 1
        await asyncio.sleep(0)


def test_dropping_the_subscription_ends_it_on_the_server() -> None:
    with world() as w, SyncClient(w.url) as client:
        ticks = client.subscribe(TICKS, type=int)
        with pytest.raises(TimeoutError):
            ticks.next(0.01)
        assert client.metrics.active_subscriptions == 1
        del ticks
        gc.collect()
        until = time.monotonic() + PATIENCE_SECONDS
        while client.metrics.active_subscriptions and time.monotonic() < until:
            time.sleep(0.01)
        assert client.metrics.active_subscriptions == 0


def test_dropping_the_client_ends_its_threads() -> None:
    with world() as w:
        client = SyncClient(w.url)
        ticks = client.subscribe(TICKS, type=int)
        del client
        w.ticks(1)
        assert next(ticks) == 1, "a subscription keeps its client alive"
        ticks.on_data(print)
        del ticks
        gc.collect()
        wait_until_no_thread()


def test_a_blocking_call_on_the_clients_own_loop_is_refused() -> None:
    with world() as w, SyncClient(w.url) as client:
        errors: list[BaseException] = []

        def predicate(tick: int) -> bool:
            for call in (lambda: client.execute("{ x }"), client.close):
                try:
                    call()
                except UsageError as error:
                    errors.append(error)
            return True

        with client.subscribe(TICKS, type=int, filter=predicate) as ticks:
            w.ticks(1)
            assert next(ticks) == 1
        assert ["own loop" in str(error) for error in errors] == [True, True]


def run(program: str, w: World, *, expected: str) -> float:
    """Run a program to its good end; return how long it took."""
    begun = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program, w.url],
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_SECONDS,
    )
    assert (done.stderr, done.stdout, done.returncode) == ("", expected, 0)
    return time.monotonic() - begun


INTERRUPTED = """
import signal, sys, threading
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored below a job in the background
from circuit_breaker_sdk import SyncClient
before = threading.enumerate()
def interrupt():
    main = threading.main_thread().ident
    threading.Timer(0.3, lambda: signal.pthread_kill(main, signal.SIGINT)).start()
try:
    with SyncClient(sys.argv[1]) as client:
        ticks = client.subscribe("subscription { ticks }", type=int)
        interrupt()
        for tick in ticks:
            print(tick)
except KeyboardInterrupt:
    print("interrupted", [t.name for t in threading.enumerate() if t not in before and "Timer" not in t.name])
"""

INTERRUPTED_CALL = """
import signal, sys, threading
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored below a job in the background
from circuit_breaker_sdk import SyncClient
def interrupt():
    main = threading.main_thread().ident
    threading.Timer(0.3, lambda: signal.pthread_kill(main, signal.SIGINT)).start()
with SyncClient(sys.argv[1]) as client:
    ticks = client.subscribe("subscription { ticks }", type=int)
    interrupt()
    for _ in range(2):
        try:
            ticks.next()
        except KeyboardInterrupt:
            print("interrupted")
            interrupt()
    try:
        ticks.wait_closed()
    except KeyboardInterrupt:
        print("again")
    print(ticks.state)
"""

INTERRUPTED_ACKNOWLEDGEMENT = """
import asyncio, signal, sys, threading
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored below a job in the background
from circuit_breaker_sdk import SyncClient
def interrupt():
    main = threading.main_thread().ident
    threading.Timer(0.3, lambda: signal.pthread_kill(main, signal.SIGINT)).start()
may_save = threading.Event()
class Store:
    async def load(self, key):
        return "fake.0"
    async def save(self, key, cursor):
        if not may_save.is_set():
            interrupt()
        await asyncio.to_thread(may_save.wait)
        saved.append(cursor)
saved = []
with SyncClient(sys.argv[1], cursor_store=Store()) as client:
    ticks = client.subscribe("subscription { ticks }", type=int, cursor_key="k")
    events = ticks.acknowledged()
    event = next(events)
    try:
        event.ack()
    except KeyboardInterrupt:
        print(event.is_acknowledged, ticks.cursor)
    may_save.set()
    interrupt()
    try:
        next(events)
    except KeyboardInterrupt:
        print("interrupted")
    event.ack()
    print(saved[-1])
"""

STOPPED = """
import signal, sys, threading
from circuit_breaker_sdk import SyncClient
client = SyncClient(sys.argv[1])
signal.signal(signal.SIGTERM, lambda *_: client.close())
ticks = client.subscribe("subscription { ticks }", type=int)
main = threading.main_thread().ident
threading.Timer(0.3, lambda: signal.pthread_kill(main, signal.SIGTERM)).start()
print(list(ticks))
"""

UNCLOSED = """
import sys
from circuit_breaker_sdk import SyncClient
client = SyncClient(sys.argv[1])
ticks = client.subscribe("subscription { ticks }", type=int)
handled = client.subscribe("subscription { ticks }", type=int).on_data(print)
print("done")
"""

FORKED = """
import os, sys
from circuit_breaker_sdk import SyncClient, UsageError
client = SyncClient(sys.argv[1])
ticks = client.subscribe("subscription { ticks }", type=int, after="fake.0")
others = client.subscribe("subscription { ticks }", type=int, after="fake.0")
event = next(others.acknowledged())
print(next(ticks), flush=True)
if not (child := os.fork()):
    for use in (lambda: next(ticks), event.ack, lambda: client.execute("{ x }")):
        try:
            use()
        except UsageError as error:
            print("process" in str(error), flush=True)
    client.close()
    os._exit(0)
os.waitpid(child, 0)
print(next(ticks), event.is_acknowledged)
client.close()
"""


def test_ctrl_c_ends_an_iteration_at_once_and_the_block_closes_everything() -> None:
    with world() as w:
        assert run(INTERRUPTED, w, expected="interrupted []\n") < 5


def test_ctrl_c_in_a_wait_can_be_caught_and_the_subscription_goes_on() -> None:
    with world() as w:
        run(INTERRUPTED_CALL, w, expected="interrupted\ninterrupted\nagain\nlive\n")


def test_ctrl_c_takes_no_acknowledgement_back() -> None:
    with world() as w:
        w.ticks(1)
        run(INTERRUPTED_ACKNOWLEDGEMENT, w, expected="True fake.1\ninterrupted\nfake.1\n")


def test_a_handler_of_a_signal_may_close_the_client_that_the_main_thread_waits_for() -> None:
    with world() as w:
        assert run(STOPPED, w, expected="[]\n") < 5


def test_a_program_that_closes_nothing_ends_all_the_same() -> None:
    with world() as w:
        assert run(UNCLOSED, w, expected="done\n") < 5


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_fork_is_told_that_the_client_is_not_its_own() -> None:
    with world() as w:
        w.ticks(1, 2)
        run(FORKED, w, expected="1\nTrue\nTrue\nTrue\n2 False\n")
