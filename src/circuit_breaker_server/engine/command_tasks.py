"""Commands that are being executed, each in a task that outlives its caller."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Final, TypeVar, final

from circuit_breaker_server.engine.errors import EngineError, ErrorCode
from circuit_breaker_server.logs import get_logger

__all__ = ["CommandTasks"]

_MAX_RUNNING: Final = 10_000
_CLOSE_SECONDS: Final = 2.0

T = TypeVar("T")

_log = get_logger("engine")


@final
class CommandTasks:
    """Run commands to their end, whether or not the caller still waits for the answer.

    A command may take several steps (a secret, a record, another record). A caller that is cancelled between
    two of them, by a ``complete`` or a time limit, must not leave half of it: the command goes on.

    :param check: called before each command; what it raises refuses the command.

    Example::

        tasks = CommandTasks()
        answer = await tasks.run(engine.workflows.create_workflow(given))
        await tasks.aclose()
    """

    def __init__(self, check: Callable[[], None] | None = None) -> None:
        self._check = check
        self._running: set[asyncio.Task[Any]] = set()

    async def run(self, command: Coroutine[Any, Any, T]) -> T:
        """Execute a command in a task of its own, and return its answer.

        Cancelling the caller does not cancel the command.

        :raises EngineError: as the command does; ``UNAVAILABLE``: too many commands are being executed,
            the server stopped before this one ended, or its audit line cannot be written.
        """
        if self._check is not None:
            try:
                self._check()
            except BaseException:
                command.close()
                raise
        if len(self._running) >= _MAX_RUNNING:
            command.close()
            raise EngineError(
                ErrorCode.UNAVAILABLE,
                f"the server is executing {_MAX_RUNNING} mutations; nothing was changed, try again later",
            )
        loop = asyncio.get_running_loop()
        task, has_ended = loop.create_task(command), loop.create_future()

        def end(task: asyncio.Task[T]) -> None:
            self._running.discard(task)
            if not has_ended.done():
                has_ended.set_result(None)

        self._running.add(task)
        task.add_done_callback(end)
        try:
            await has_ended  # not the task, which would be cancelled with the caller
        except asyncio.CancelledError:
            task.add_done_callback(_report)  # the caller is gone: no other task reads the failure
            raise
        if task.cancelled():
            raise EngineError(
                ErrorCode.UNAVAILABLE,
                "the server stopped before the mutation ended, which may have happened: read before a retry",
            )
        return task.result()

    async def aclose(self) -> None:
        """Wait for the commands for 2 s, then cancel those that are left. Idempotent."""
        if self._running:
            _, late = await asyncio.wait(self._running, timeout=_CLOSE_SECONDS)
            for task in late:
                task.cancel()
            if late:
                await asyncio.wait(late)


def _report(task: asyncio.Task[Any]) -> None:
    if (
        not task.cancelled()
        and (error := task.exception()) is not None
        and not isinstance(error, EngineError)
    ):
        _log.error("command_failed", exc_info=error)
