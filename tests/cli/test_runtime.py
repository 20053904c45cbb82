"""How a command runs: signals, its status, one line for an error."""

from __future__ import annotations

import asyncio
import gc
import os
import signal

import pytest

from circuit_breaker_sdk.cli.exit_codes import ExitCode, exit_code_of
from circuit_breaker_sdk.cli.runtime import one_line, print_error, run, settle_memory, until_stopped
from circuit_breaker_sdk.errors import (
    AuthenticationFailed,
    BufferOverflowError,
    CircuitBreakerError,
    ConnectionFailed,
    GapError,
    HandshakeFailed,
    OperationError,
    OperationTimeoutError,
    RateLimitExceeded,
    SubscriptionFailed,
    UsageError,
)


def test_the_commands_result_is_the_status() -> None:
    async def command(stop: asyncio.Event) -> int:
        return 5

    assert run(command) == 5


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_sets_the_event_and_the_handlers_are_given_back(number: signal.Signals) -> None:
    before = signal.getsignal(number)

    async def command(stop: asyncio.Event) -> int:
        os.kill(os.getpid(), number)
        await asyncio.wait_for(stop.wait(), 10)
        return 0

    assert run(command) == 0
    assert signal.getsignal(number) == before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_interrupts_a_command_that_does_not_end(number: signal.Signals) -> None:
    async def command(stop: asyncio.Event) -> int:
        os.kill(os.getpid(), number)
        await stop.wait()
        os.kill(os.getpid(), number)
        await asyncio.Event().wait()
        return 0

    assert run(command) == ExitCode.INTERRUPTED


async def test_until_stopped_returns_the_result_of_work_that_ends() -> None:
    async def work() -> str:
        return "done"

    assert await until_stopped(asyncio.Event(), work()) == "done"


async def test_until_stopped_cancels_the_work_and_waits_for_its_end() -> None:
    stop, left = asyncio.Event(), asyncio.Event()

    async def work() -> None:
        try:
            stop.set()
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            left.set()

    await until_stopped(stop, work())
    assert left.is_set()


async def test_until_stopped_raises_what_the_work_raises() -> None:
    async def work() -> None:
        raise UsageError("wrong")

    with pytest.raises(UsageError, match="wrong"):
        await until_stopped(asyncio.Event(), work())


async def test_cancelling_until_stopped_ends_the_work_too() -> None:
    started, left = asyncio.Event(), asyncio.Event()

    async def work() -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            left.set()

    task = asyncio.create_task(until_stopped(asyncio.Event(), work()))
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert left.is_set()


def test_a_text_is_put_on_one_line_without_control_characters() -> None:
    assert one_line("a\nb\r\n  c\x1b[31md\x07") == "a b c [31md "
    assert one_line("Grüße → 世界") == "Grüße → 世界"


def test_an_error_is_one_line_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    print_error("first\nsecond")
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == "error: first second\n"


@pytest.mark.parametrize(
    ("error", "before", "after"),
    [
        (UsageError("x"), 2, 2),
        (ConnectionFailed("x"), 3, 6),
        (HandshakeFailed("x"), 3, 6),
        (OperationTimeoutError("x", seconds=1.0), 3, 6),
        (AuthenticationFailed("x"), 4, 4),
        (OperationError([]), 5, 5),
        (SubscriptionFailed("1", "x"), 5, 5),
        (RateLimitExceeded(), 5, 5),
        (GapError("1", "prev"), 6, 6),
        (BufferOverflowError("1", events=1, size_bytes=1), 6, 6),
    ],
)
def test_each_kind_of_error_has_its_status(error: CircuitBreakerError, before: int, after: int) -> None:
    assert exit_code_of(error, live=False) == before
    assert exit_code_of(error, live=True) == after


def test_what_is_loaded_is_out_of_the_collectors_sight() -> None:
    before, thresholds = gc.get_freeze_count(), gc.get_threshold()
    kept = [object()]
    try:
        settle_memory()
        assert gc.get_freeze_count() > before
        assert not any(it is kept for it in gc.get_objects())
        assert gc.get_threshold() == (3_000, 1, 700)
        assert gc.get_threshold() != thresholds
    finally:
        gc.set_threshold(*thresholds)
        gc.unfreeze()
