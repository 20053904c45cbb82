"""Run a command: its event loop, its signals, its error messages."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import sys
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TypeVar, final

from circuit_breaker_sdk.cli.exit_codes import ExitCode

__all__ = [
    "Stop",
    "give_up_stdout",
    "one_line",
    "print_error",
    "print_marker",
    "run",
    "settle_memory",
    "until_stopped",
]

T = TypeVar("T")

_new_event_loop: Callable[[], asyncio.AbstractEventLoop]
try:
    import uvloop

    _new_event_loop = uvloop.new_event_loop
except ImportError:  # there is none for Windows and PyPy
    _new_event_loop = asyncio.new_event_loop

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@final
class Stop(asyncio.Event):
    """The event that the first signal sets.

    :ivar again: the event that the second signal sets.
    :ivar is_termination: whether it was SIGTERM: a supervisor asks, and waits; at a terminal it was Ctrl-C.
    """

    def __init__(self) -> None:
        super().__init__()
        self.again: asyncio.Event = asyncio.Event()
        self.is_termination: bool = False


def run(command: Callable[[Stop], Coroutine[object, object, int]]) -> int:
    """Run a command to its end, on uvloop where there is one, and return its exit status.

    The command gets an event that the first SIGINT or SIGTERM sets; it then ends in its own time. A second
    signal interrupts whatever it is doing.
    """

    async def main() -> int:
        stop = Stop()
        with _signals_set(stop):
            return await command(stop)

    try:
        with asyncio.Runner(loop_factory=_new_event_loop) as runner:
            return runner.run(main())
    except KeyboardInterrupt:
        return ExitCode.INTERRUPTED


@contextmanager
def _signals_set(stop: Stop) -> Iterator[None]:
    """Let the first signal set the event, and give the signals back with it.

    Plain handlers rather than the loop's: they run also while the program is blocked in a write to a pipe
    that nobody reads, so that a second Ctrl-C ends it even there.
    """
    loop = asyncio.get_running_loop()
    before = {number: signal.getsignal(number) for number in _SIGNALS}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def on_signal(number: int, _frame: FrameType | None) -> None:
        signal.signal(signal.SIGINT, on_second)
        signal.signal(signal.SIGTERM, on_second)
        stop.is_termination = number == signal.SIGTERM
        loop.call_soon_threadsafe(stop.set)

    def on_second(number: int, frame: FrameType | None) -> None:
        # What is raised may be lost in a callback that catches everything; the event is not.
        loop.call_soon_threadsafe(stop.again.set)
        signal.default_int_handler(number, frame)

    for number in _SIGNALS:
        signal.signal(number, on_signal)
    try:
        yield
    finally:
        restore()


async def until_stopped(stop: asyncio.Event, work: Coroutine[object, object, T]) -> T | None:
    """Run the work to its result, or cancel it when the event is set first and return ``None``.

    The work has ended when this returns; an error it raises is raised here.
    """
    working = asyncio.create_task(work)
    stopping = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait((working, stopping), return_when=asyncio.FIRST_COMPLETED)
    finally:
        stopping.cancel()
        working.cancel()  # does nothing to work that is done
        await asyncio.wait((working, stopping))
    return None if working.cancelled() else working.result()


def settle_memory() -> None:
    """Take what is loaded by now out of the collector's sight, for the life of this process.

    It stays anyway, and looking through all of it for garbage stops everything for up to 100 ms at a time.
    What is made later is looked through whole (generation 2) only after 6 million new objects: the garbage
    of a mutation is young, and is found among the young. They are looked through when there are more of them
    than 64 requests have while they are answered, and not in the middle of each burst.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(3_000, 1, 700)


def one_line(text: object) -> str:
    """Put a text on one line, without the control characters that could steer a terminal."""
    return "".join(c if c.isprintable() else " " for c in " ".join(str(text).split()))


def print_error(text: object) -> None:
    """Write one line to stderr: what happened and what to do."""
    sys.stderr.write(f"error: {one_line(text)}\n")
    sys.stderr.flush()


def print_marker(name: str, text: object) -> None:
    """Write one line about the course of events to stderr, so that stdout holds nothing but results."""
    sys.stderr.write(f"{name}: {one_line(text)}\n")
    sys.stderr.flush()


def give_up_stdout() -> None:
    """Point stdout at nothing once its reader has gone, so that the last flush does not fail."""
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, sys.stdout.fileno())
    os.close(nothing)
