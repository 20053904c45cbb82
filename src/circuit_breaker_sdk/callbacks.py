"""The application's callbacks: handlers, filters, token functions, listeners.

A callback runs in the context in which the application attached it (:mod:`contextvars`), not in that of the
task which happened to open the socket. Whatever it raises is its own affair: a guarded call catches
:data:`CALLBACK_ERRORS`.
"""

from __future__ import annotations

import asyncio
import contextvars
import inspect
from collections.abc import Callable, Coroutine, Generator
from typing import Any, Final, TypeVar, final

__all__ = ["CALLBACK_ERRORS", "InContext", "Wrapped", "background_task", "callback_name", "in_own_context"]

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., object])

CALLBACK_ERRORS: Final = (Exception, asyncio.CancelledError)
"""The errors of a plain call of a callback. A CancelledError is that of a future which the callback asked."""


def in_own_context(callback: F) -> F:
    """Return a callback that always runs in the context in which this is called.

    Where the context is empty, as in most programs, it is the callback itself: the client's own tasks run in
    an empty context too.
    """
    if isinstance(callback, InContext) or not len(contextvars.copy_context()):
        return callback
    return InContext(callback, contextvars.copy_context())  # type: ignore[return-value]  # is called as it is


def callback_name(callback: object) -> str:
    """Name a callback for errors and logs."""
    while isinstance(callback, Wrapped):
        callback = callback.callback
    return getattr(callback, "__qualname__", None) or type(callback).__qualname__


def background_task(coroutine: Coroutine[Any, Any, T], *, name: str) -> asyncio.Task[T]:
    """Start a task of the client's own, in an empty context: it outlives the call that has caused it.

    Callbacks of a socket run in the context in which it was opened, so this keeps the caller's context
    variables out of everything that the socket brings.
    """
    return asyncio.get_running_loop().create_task(coroutine, name=name, context=contextvars.Context())


class Wrapped:
    """A callback of the application with something around it."""

    __slots__ = ("callback",)

    def __init__(self, callback: Callable[..., object]) -> None:
        self.callback: Callable[..., object] = callback


@final
class InContext(Wrapped):
    """A callback, and the context that it runs in."""

    __slots__ = ("context",)

    def __init__(self, callback: Callable[..., object], context: contextvars.Context) -> None:
        super().__init__(callback)
        self.context: contextvars.Context = context

    def __call__(self, *arguments: object, **named: object) -> object:
        context = self.context
        try:
            result = context.run(self.callback, *arguments, **named)
        except RuntimeError as error:
            if "is already entered" not in str(error):
                raise
            # A callback that makes another one of the same context be called: it has a copy of its own.
            result = context.copy().run(self.callback, *arguments, **named)
        if inspect.iscoroutine(result):
            return _Awaited(result, context)
        return result


@final
class _Awaited:
    """A callback's coroutine: the task that awaits it makes each step in the callback's context."""

    __slots__ = ("_context", "_coroutine")

    def __init__(self, coroutine: Coroutine[Any, Any, object], context: contextvars.Context) -> None:
        self._coroutine = coroutine
        self._context = context

    def __await__(self) -> Generator[Any, Any, object]:
        run, coroutine = self._context.run, self._coroutine
        step: Callable[[Any], Any] = coroutine.send
        given: object = None
        while True:
            try:
                awaited = run(step, given)
            except StopIteration as stop:
                return stop.value
            try:
                given, step = (yield awaited), coroutine.send
            except BaseException as error:  # noqa: BLE001 (thrown into the coroutine)
                given, step = error, coroutine.throw

    def close(self) -> None:
        """Forget the coroutine, which is not awaited any more."""
        self._coroutine.close()
