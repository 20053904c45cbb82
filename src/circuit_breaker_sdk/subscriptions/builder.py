"""The way to a subscription: arguments by keyword or by fluent calls, then subscribe, enter or iterate."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator
from datetime import datetime
from types import TracebackType
from typing import Final, Generic, Protocol, Self, TypeVar, final, overload

import msgspec

from circuit_breaker_sdk.callbacks import in_own_context
from circuit_breaker_sdk.config import BufferLimits
from circuit_breaker_sdk.delivery.delivery import Delivery
from circuit_breaker_sdk.delivery.filters import SubscriptionFilter, as_filter, split
from circuit_breaker_sdk.errors import UsageError
from circuit_breaker_sdk.recovery.gaps import Gap
from circuit_breaker_sdk.subscriptions.manager import SubscriptionManager
from circuit_breaker_sdk.subscriptions.operation import Operation
from circuit_breaker_sdk.subscriptions.subscription import Subscription

__all__ = ["SubscriptionBuilder"]

_MAX_LAST: Final = 1_000
"""Most events that this project's servers go back by ``last``."""

T = TypeVar("T")


class _Ends(Protocol):
    async def unsubscribe(self) -> None: ...


S = TypeVar("S", bound=_Ends)
R = TypeVar("R")


class SubscriptionBuilder(Generic[T, S]):
    """Base of all builders: three ways to start, each leading to the same typed subscription.

    ``client.subscribe(…)`` and every stream of the domain clients return one. Awaiting it is what
    :meth:`subscribe` does; where a coroutine is needed (``asyncio.create_task``), call that.

    Thin subclasses add a method per argument of their operation. Iterating starts a subscription of its own,
    which ends when the loop is left and nothing refers to the iterator any more; in a block it ends with it.

    Example::

        subscription = await builder
        async with builder as subscription: ...
        async for event in builder: ...
    """

    def __init__(
        self, manager: SubscriptionManager, operation: Operation[T], into: Callable[[Delivery[T]], S]
    ) -> None:
        manager.affinity.check()
        self._manager = manager
        self._operation = operation
        self._into = into
        self._entered: S | None = None
        self._filter: SubscriptionFilter[T] | None = None

    def _set(self, **changes: object) -> None:
        self._manager.affinity.check()
        self._operation = msgspec.structs.replace(self._operation, **changes)

    def _with(self, argument: str, value: object) -> Self:
        """Set one argument of the operation; ``None`` takes it away."""
        variables = {**(self._operation.variables or {}), argument: value}
        if value is None:
            del variables[argument]
        self._set(variables=variables)
        return self

    # Overloads and no union: mypy infers the event's type of `SubscriptionFilter.Custom(lambda …)` only so.
    @overload
    def filter(self, filter: SubscriptionFilter[T]) -> Self: ...

    @overload
    def filter(self, filter: Callable[[T], object]) -> Self: ...

    def filter(self, filter: Callable[[T], object]) -> Self:  # noqa: A002 (the name users expect)
        """Let through only events for which ``filter`` is true; several must all hold.

        A :class:`SubscriptionFilter` is split when the subscription is started: each part of a conjunction
        that compares with an argument of the operation, where that argument is not set otherwise, is sent
        to the server as a variable; all the rest is applied on the client, from the first event on. A plain
        function is a ``SubscriptionFilter.Custom``. If a filter raises, see :meth:`Subscription.filter`.

        :raises UsageError: the event type lacks an attribute that the filter reads, or the function is
            async.
        """
        self._manager.affinity.check()
        added = as_filter(filter)
        added.check(self._operation.type)
        self._filter = added if self._filter is None else self._filter & added
        return self

    @property
    def label(self) -> str:
        """The operation's short name, as in logs and errors."""
        return self._operation.label

    def buffer(self, limits: BufferLimits) -> Self:
        """Bound this subscription's buffer otherwise than the client's settings say."""
        self._set(buffer=limits)
        return self

    def after(self, cursor: str) -> Self:
        """Begin behind this ``Subscription.cursor`` instead of now, where the server gives cursors."""
        self._set(after=cursor, begin=None)
        return self

    def from_beginning(self) -> Self:
        """Begin with the first event there ever was, instead of now.

        Needs a server of the resume protocol, as ``since`` and ``last`` do; what it has trimmed is a gap.
        """
        self._set(after=None, begin={"from": "beginning"})
        return self

    def since(self, moment: datetime) -> Self:
        """Begin with the first event at or after a moment, by the server's clock.

        :raises UsageError: the moment has no time zone.
        """
        self._manager.affinity.check()
        if getattr(moment, "tzinfo", None) is None:
            raise UsageError(f"since needs a time with a zone, as datetime.now(UTC), not {moment!r}")
        self._set(after=None, begin={"since": moment.isoformat()})
        return self

    def last(self, count: int) -> Self:
        """Begin with the last events that match, ``count`` or all there are; at most 1,000.

        :raises UsageError: it is not a whole number from 1 to 1,000.
        """
        self._manager.affinity.check()
        if type(count) is not int or not 1 <= count <= _MAX_LAST:
            raise UsageError(f"last needs a whole number from 1 to {_MAX_LAST}, not {count!r}")
        self._set(after=None, begin={"last": count})
        return self

    def cursor_key(self, key: str) -> Self:
        """Keep its cursor under this key in the client's ``cursor_store``; begin behind the one kept there.

        A restarted program gets again what it had handled and not saved yet: at least once, never less.
        """
        self._set(cursor_key=key)
        return self

    def critical(self, critical: bool = True) -> Self:
        """Poll for it over HTTP while no WebSocket gets through: the same events, a round trip later.

        It goes back to the WebSocket by itself, from the same cursor. This needs a server that answers
        ``/graphql/poll``.
        """
        self._set(critical=critical)
        return self

    def on_gap(
        self, handler: Callable[[Gap], object], *, snapshot: Callable[[], Awaitable[object]] | None = None
    ) -> Self:
        """Be told of gaps and go on, instead of ending with ``GapError``.

        At a gap, once all events before it were taken, ``snapshot`` is called (by default the stream's own
        query of the present state, where it has one), then ``handler`` with a :class:`Gap`, which holds the
        answer; then the stream goes on from the cursor at which the snapshot was asked for. The handler is
        a plain or an async function. It is told too, with the reason ``unknown``, after each reconnect to a
        server that gives no cursors.
        """
        self._set(
            on_gap=in_own_context(handler),
            snapshot=None if snapshot is None else in_own_context(snapshot),
        )
        return self

    async def subscribe(self) -> S:
        """Start a subscription and return it live.

        :raises TransportError, SubscriptionError: no connection, or the server refused it.
        """
        return await self._start(self._into)

    def __await__(self) -> Generator[object, None, S]:
        return self.subscribe().__await__()

    async def __aenter__(self) -> S:
        self._manager.affinity.check()
        if self._entered is not None:
            raise UsageError("this builder's block is entered already: make another builder")
        self._entered = await self.subscribe()
        return self._entered

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._manager.affinity.check()
        entered, self._entered = self._entered, None
        if entered is not None:
            await entered.unsubscribe()

    def __aiter__(self) -> _Events[T]:
        self._manager.affinity.check()
        return _Events(self._subscribe_plain)

    def _subscribe_plain(self) -> Awaitable[Subscription[T]]:
        return self._start(Subscription)

    def _start(self, into: Callable[[Delivery[T]], R]) -> Awaitable[R]:
        operation = self._operation
        if self._filter is None:
            return self._manager.subscribe(operation, into)
        # Split here and not in `filter`: an argument set after it must not take a pushed part's place.
        given = {k: v for k, v in (operation.variables or {}).items() if v is not msgspec.UNSET}
        pushed, rest = split(self._filter, operation.filter_arguments - given.keys())
        if pushed:
            operation = msgspec.structs.replace(operation, variables={**given, **pushed})

        def filtered(delivery: Delivery[T]) -> R:
            for part in rest:
                delivery.consumer.add_filter(part)
            return into(delivery)

        return self._manager.subscribe(operation, filtered)


@final
class _Events(Generic[T]):
    """Subscribe at the first event that is asked for; an iterator, so that dropping it ends the stream."""

    __slots__ = ("_start", "_subscription")

    def __init__(self, start: Callable[[], Awaitable[Subscription[T]]]) -> None:
        self._start = start
        self._subscription: Subscription[T] | None = None

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        if self._subscription is None:
            self._subscription = await self._start()
        return await anext(self._subscription)
