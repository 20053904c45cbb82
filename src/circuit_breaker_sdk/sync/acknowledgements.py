"""Events that blocking code acknowledges, in any thread and in whatever order."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, Self, TypeVar, final

from circuit_breaker_sdk.delivery.look_ahead import PendingLookAhead, Taken
from circuit_breaker_sdk.sync.portal import Portal

if TYPE_CHECKING:
    from circuit_breaker_sdk.sync.subscription import SyncSubscription

__all__ = ["SyncAcknowledged", "SyncPendingEvent"]

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


@final
class SyncPendingEvent(Generic[T_co]):
    """An event that is handled once it is acknowledged: see :meth:`SyncSubscription.acknowledged`.

    :ivar value: the event.

    Example::

        for event in subscription.acknowledged():
            store.insert(event.value)
            event.ack()
    """

    __slots__ = ("_ahead", "_portal", "_taken", "value")

    def __init__(self, portal: Portal, ahead: PendingLookAhead[T_co], taken: Taken[T_co]) -> None:
        self.value: T_co = taken.value
        self._portal = portal
        self._ahead = ahead
        self._taken = taken

    @property
    def is_acknowledged(self) -> bool:
        """Whether the client has noted an :meth:`ack`."""
        return self._taken.is_acknowledged

    def ack(self, timeout: float | None = None) -> None:
        """Note that the event is handled. Idempotent; any thread may call it.

        The subscription's cursor goes on as far as all events before are acknowledged too. Where it has a
        ``cursor_key`` this returns when the store holds that cursor; acknowledgements that come together
        share one write. A timeout, or an interrupt of the wait, takes nothing back.

        :param timeout: seconds to wait for the store; ``None``: as long as it takes.
        :raises TimeoutError: the store has not answered in time; saving is tried again.
        :raises UsageError: the client is closed, and the event may come again; or this is the client's own
            loop, or a fork.
        :raises Exception: what the store raises. The event stays acknowledged, and saving is tried again.
        """
        # Two steps: where the wait for the second is left, the first is done all the same.
        self._portal.wake(self._note)
        try:
            self._portal.call_within(timeout, self._ahead.acknowledgements.save)
        except TimeoutError as error:
            raise TimeoutError("the event is acknowledged, but its cursor is not stored yet") from error

    def _note(self) -> None:
        self._taken.is_acknowledged = True
        self._ahead.settle()
        self._ahead.acknowledgements.settle()


@final
class SyncAcknowledged(Generic[T]):
    """Iterate over events, each to be acknowledged: see :meth:`SyncSubscription.acknowledged`.

    Example::

        event = subscription.acknowledged(max_pending=1).next(timeout=5)
        event.ack()
    """

    __slots__ = ("_ahead", "_portal", "_subscription")

    def __init__(self, portal: Portal, subscription: SyncSubscription[T], ahead: PendingLookAhead[T]) -> None:
        self._portal = portal
        self._subscription = subscription
        self._ahead = ahead

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> SyncPendingEvent[T]:
        """Wait for the next event."""
        return self.next()

    def next(self, timeout: float | None = None) -> SyncPendingEvent[T]:
        """Wait for the next event, for so many seconds at most. A timeout loses none.

        :raises TimeoutError: none came in time, or as many as ``max_pending`` are not acknowledged.
        :raises StopIteration: the stream has ended.
        """
        taken = self._subscription._hand_over.next(self._ahead, self._portal.wake, timeout)  # noqa: SLF001 (one class in two)
        return SyncPendingEvent(self._portal, self._ahead, taken)
