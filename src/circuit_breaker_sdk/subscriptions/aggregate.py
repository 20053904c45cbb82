"""Aggregation over windows of event time: counted, folded, bounded."""

from __future__ import annotations

import copy
import types
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Generic, Self, TypeVar, final

import msgspec

from circuit_breaker_sdk.errors import StreamFailure, SubscriptionError, TransportError, UsageError

__all__ = ["EventAggregator", "Folds", "Window", "Windows"]

T = TypeVar("T")

Folds = Mapping[str, tuple[object, Callable[..., object]]]
"""By name: the initial value, copied for each window, and ``function(value, event)`` that gives the next."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


@final
class Window(msgspec.Struct, Generic[T], frozen=True, kw_only=True):
    """The events from ``start`` to before ``end``.

    :ivar start: UTC, a multiple of the window's size since 1970.
    :ivar count: events in it, kept or not.
    :ivar folds: the value of each fold, by name.
    :ivar events: the events, where they are kept, in the order of their arrival.
    :ivar dropped_events: events that are counted and folded, but not in ``events``: the bound was reached.
    :ivar early: emitted before an event showed that its end has passed: by ``flush``, or because too many
        windows were open.

    Example::

        async for window in subscription.windows(60):
            print(window.start, window.count, window.rate)
    """

    start: datetime
    end: datetime
    count: int
    folds: Mapping[str, object] = types.MappingProxyType({})
    events: tuple[T, ...] = ()
    dropped_events: int = 0
    early: bool = False

    @property
    def rate(self) -> float:
        """Events per second of the window's whole size."""
        return self.count / (self.end - self.start).total_seconds()


class _Open(Generic[T]):
    """A window that still takes events."""

    __slots__ = ("count", "dropped", "end", "events", "folds", "size_bytes", "start")

    def __init__(self, start: datetime, end: datetime, folds: dict[str, object]) -> None:
        self.start = start
        self.end = end
        self.count = 0
        self.folds = folds
        self.events: list[T] = []
        self.size_bytes = 0
        self.dropped = 0


@final
class EventAggregator(Generic[T]):
    """Sort events into tumbling windows by the time that they carry; windows are aligned to 1970.

    Time is the events' own: the latest time seen, less ``allowed_lateness``, is how far time has come. A
    window is complete, and returned by :meth:`add`, once that passes its end; a quiet stream therefore holds
    its last window until the next event, or :meth:`flush`. Windows are returned in the order of time, each
    once, and empty ones not at all. An event for a window that is over is not added: it is counted in
    ``late``. An event dated far into the future makes those that follow late: that too shows there.

    Memory is bounded. At most ``max_open_windows`` are open: one more makes the oldest one be returned
    early. With ``keep_events`` all open windows together keep at most ``max_events`` events of at most
    ``max_bytes``: what is over is dropped from ``Window.events``, and counted in ``Window.dropped_events``,
    while ``count`` and ``folds`` stay exact.

    :param window_size: seconds, or a timedelta; a microsecond at least.
    :param time: an event's time, with a time zone; ``None`` reads its ``timestamp``.
    :param folds: values to compute for each window: see :data:`Folds`. The initial value is deeply copied.
    :param allowed_lateness: seconds, or a timedelta, that an event may come after a later one.
    :param size: an event's size in bytes; ``None`` takes the length of its JSON text.
    :ivar late: events that came after their window was returned.

    Example::

        total = lambda value, event: value + event.amount
        costs = EventAggregator(60, folds={"cost": (0.0, total)})
        for window in costs.add(event):
            print(window.start, window.count, window.folds["cost"])
    """

    def __init__(
        self,
        window_size: float | timedelta,
        *,
        time: Callable[[T], datetime] | None = None,
        folds: Folds | None = None,
        allowed_lateness: float | timedelta = 0,
        max_open_windows: int = 64,
        keep_events: bool = False,
        max_events: int = 10_000,
        max_bytes: int = 16 * 1024 * 1024,
        size: Callable[[T], int] | None = None,
    ) -> None:
        self._size = _microseconds(window_size, "window_size")
        self._lateness = _microseconds(allowed_lateness, "allowed_lateness")
        if self._size < 1:
            raise UsageError(f"window_size must be a microsecond at least, not {window_size}")
        if min(max_open_windows, max_events, max_bytes) < 1:
            raise UsageError("max_open_windows, max_events and max_bytes must be greater than 0")
        self.late: int = 0
        self._time: Callable[[T], datetime] = time or _timestamp
        self._folds = dict(folds or {})
        self._max_open = max_open_windows
        self._keep_events = keep_events
        self._max_events = max_events
        self._max_bytes = max_bytes
        self._size_of: Callable[[T], int] = size or _encoded_size
        self._open: dict[int, _Open[T]] = {}
        self._kept = 0
        self._kept_bytes = 0
        # Microseconds since 1970: all before it is returned, and over.
        self._closed_until: int | None = None

    @property
    def open_windows(self) -> int:
        """The number of open windows."""
        return len(self._open)

    def add(self, event: T) -> list[Window[T]]:
        """Take one event; return the windows that it completes, oldest first.

        If a function of the application raises, that is raised on and the event is not added.

        :raises UsageError: the event has no time, or one without a time zone.
        """
        moment = _instant(self._time(event))
        index = moment // self._size
        if self._closed_until is not None and index * self._size < self._closed_until:
            self.late += 1
            return []
        # All that may raise comes first: an event is added wholly or not at all.
        window = self._open.get(index)
        before = window.folds if window is not None else copy.deepcopy(self._initial())
        folds = {name: function(before[name], event) for name, (_, function) in self._folds.items()}
        size_bytes = self._size_of(event) if self._keep_events else 0
        if window is None:
            start = index * self._size
            window = self._open[index] = _Open(_moment(start), _moment(start + self._size), folds)
        window.folds = folds
        window.count += 1
        if self._keep_events:
            self._keep(window, event, size_bytes)
        return self._completed(moment - self._lateness)

    def flush(self) -> list[Window[T]]:
        """Return all open windows, oldest first; events that still come for them are late."""
        return [self._close(index, early=True) for index in sorted(self._open)]

    def _initial(self) -> dict[str, object]:
        return {name: initial for name, (initial, _) in self._folds.items()}

    def _keep(self, window: _Open[T], event: T, size_bytes: int) -> None:
        if self._kept >= self._max_events or self._kept_bytes + size_bytes > self._max_bytes:
            window.dropped += 1
            return
        window.events.append(event)
        window.size_bytes += size_bytes
        self._kept += 1
        self._kept_bytes += size_bytes

    def _completed(self, reached: int) -> list[Window[T]]:
        over = [index for index in self._open if (index + 1) * self._size <= reached]
        completed = [self._close(index, early=False) for index in sorted(over)]
        while len(self._open) > self._max_open:
            completed.append(self._close(min(self._open), early=True))
        # Also windows that never had an event are over.
        passed = reached // self._size * self._size
        if self._closed_until is None or passed > self._closed_until:
            self._closed_until = passed
        return completed

    def _close(self, index: int, *, early: bool) -> Window[T]:
        window = self._open.pop(index)
        self._kept -= len(window.events)
        self._kept_bytes -= window.size_bytes
        end = (index + 1) * self._size
        if self._closed_until is None or end > self._closed_until:
            self._closed_until = end
        return Window(
            start=window.start,
            end=window.end,
            count=window.count,
            folds=types.MappingProxyType(window.folds),
            events=tuple(window.events),
            dropped_events=window.dropped,
            early=early,
        )


@final
class Windows(Generic[T]):
    """Iterate over a stream's windows: see :meth:`Subscription.windows`.

    :ivar aggregator: what sorts the events; its ``late`` counts those that came too late.

    Example::

        windows = subscription.windows(60)
        first = await anext(windows)
    """

    __slots__ = ("_end", "_events", "_ready", "aggregator")

    def __init__(self, events: AsyncIterator[T], aggregator: EventAggregator[T]) -> None:
        self.aggregator: EventAggregator[T] = aggregator
        self._events = events
        self._ready: deque[Window[T]] = deque()
        self._end: StopAsyncIteration | StreamFailure | None = None

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Window[T]:
        """Wait for the next window; at the end of the stream the open ones come first.

        Cancellation loses no event.

        An exception of a fold or of ``time`` is raised on: that event is left out, and one may go on.
        """
        while not self._ready:
            if self._end is not None:
                raise self._end
            try:
                event = await anext(self._events)
            except (StopAsyncIteration, TransportError, SubscriptionError) as end:
                self._end = end
                self._ready.extend(self.aggregator.flush())
            else:
                self._ready.extend(self.aggregator.add(event))
        return self._ready.popleft()


def _microseconds(value: float | timedelta, name: str) -> int:
    duration = value if isinstance(value, timedelta) else _seconds(value, name)
    if duration < timedelta():
        raise UsageError(f"{name} must not be negative, not {value}")
    return duration // _MICROSECOND


def _seconds(value: float, name: str) -> timedelta:
    try:
        return timedelta(seconds=value)
    except (OverflowError, ValueError):
        raise UsageError(f"{name} must be a number of seconds, not {value}") from None


def _instant(moment: object) -> int:
    if not isinstance(moment, datetime) or moment.tzinfo is None:
        raise UsageError(f"an event's time must be a datetime with a time zone, not {moment!r}")
    return (moment - _EPOCH) // _MICROSECOND


def _moment(microseconds: int) -> datetime:
    try:
        return _EPOCH + microseconds * _MICROSECOND
    except OverflowError:
        raise UsageError("the event's window reaches beyond what a datetime can say") from None


def _timestamp(event: object) -> datetime:
    moment: object = getattr(event, "timestamp", None)
    if not isinstance(moment, datetime):
        raise UsageError(
            f"{type(event).__name__} has no timestamp to sort it by: say time=…, for example "
            "time=lambda resource: resource.updated_at"
        )
    return moment


def _encoded_size(event: object) -> int:
    try:
        return len(msgspec.json.encode(event))
    except TypeError as error:
        raise UsageError(f"the size of a {type(event).__name__} is not known: say size=… ({error})") from None
