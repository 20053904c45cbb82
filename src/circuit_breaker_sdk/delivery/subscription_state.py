"""States of a subscription, its continuity, and its statistics."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import NewType, final

import msgspec

__all__ = ["TRANSITIONS", "Continuity", "SubscriptionId", "SubscriptionState", "SubscriptionStats", "Trigger"]

SubscriptionId = NewType("SubscriptionId", str)
"""The operation id under which a subscription runs; fresh for every one, and after a lost connection."""


class SubscriptionState(enum.StrEnum):
    """State of a subscription; the last three are ends."""

    STARTING = "starting"
    LIVE = "live"
    """From here on no event is missed."""
    RECONNECTING = "reconnecting"
    """The connection was lost; the subscription goes on by itself, where the server can from its cursor."""
    PAUSED = "paused"
    """Its buffer was full: the stream is stopped, and goes on from its cursor once half of it is taken."""
    COMPLETED = "completed"
    """The server ended the stream."""
    FAILED = "failed"
    """It ended with an error: ``Subscription.error``."""
    UNSUBSCRIBED = "unsubscribed"
    """We ended it."""

    @property
    def is_end(self) -> bool:
        """Whether nothing more will come."""
        return self in _ENDS


_ENDS = frozenset((SubscriptionState.COMPLETED, SubscriptionState.FAILED, SubscriptionState.UNSUBSCRIBED))


class Trigger(enum.Enum):
    """Cause of a change of a subscription's state."""

    GO_LIVE = enum.auto()
    LOSE = enum.auto()
    PAUSE = enum.auto()
    COMPLETE = enum.auto()
    FAIL = enum.auto()
    UNSUBSCRIBE = enum.auto()


_S = SubscriptionState

# A pair that is not here is an error: after an end only `unsubscribe` may still come, and changes nothing.
TRANSITIONS: Mapping[tuple[SubscriptionState, Trigger], SubscriptionState] = {
    (_S.STARTING, Trigger.GO_LIVE): _S.LIVE,
    (_S.STARTING, Trigger.LOSE): _S.STARTING,
    (_S.STARTING, Trigger.COMPLETE): _S.COMPLETED,
    (_S.STARTING, Trigger.FAIL): _S.FAILED,
    (_S.STARTING, Trigger.UNSUBSCRIBE): _S.UNSUBSCRIBED,
    (_S.LIVE, Trigger.LOSE): _S.RECONNECTING,
    (_S.LIVE, Trigger.PAUSE): _S.PAUSED,
    (_S.LIVE, Trigger.COMPLETE): _S.COMPLETED,
    (_S.LIVE, Trigger.FAIL): _S.FAILED,
    (_S.LIVE, Trigger.UNSUBSCRIBE): _S.UNSUBSCRIBED,
    (_S.RECONNECTING, Trigger.GO_LIVE): _S.LIVE,
    (_S.RECONNECTING, Trigger.LOSE): _S.RECONNECTING,
    (_S.RECONNECTING, Trigger.COMPLETE): _S.COMPLETED,
    (_S.RECONNECTING, Trigger.FAIL): _S.FAILED,
    (_S.RECONNECTING, Trigger.UNSUBSCRIBE): _S.UNSUBSCRIBED,
    (_S.PAUSED, Trigger.GO_LIVE): _S.LIVE,
    (_S.PAUSED, Trigger.LOSE): _S.RECONNECTING,
    (_S.PAUSED, Trigger.COMPLETE): _S.COMPLETED,
    (_S.PAUSED, Trigger.FAIL): _S.FAILED,
    (_S.PAUSED, Trigger.UNSUBSCRIBE): _S.UNSUBSCRIBED,
    (_S.COMPLETED, Trigger.UNSUBSCRIBE): _S.COMPLETED,
    (_S.FAILED, Trigger.UNSUBSCRIBE): _S.FAILED,
    (_S.UNSUBSCRIBED, Trigger.UNSUBSCRIBE): _S.UNSUBSCRIBED,
}


class Continuity(enum.StrEnum):
    """Knowledge about events that are missing from a subscription."""

    OK = "ok"
    """Proven: each event's cursor chain joins the one before."""
    RESUMED = "resumed"
    """The server has a cursor of its own and was resumed behind it: it promises that nothing is missing, and
    nothing proves it."""
    UNKNOWN = "unknown"
    """The server gives no cursors, or gave none before a connection was lost."""
    GAP = "gap"
    """Events are missing: dropped by the overflow policy, or because they cannot be read again. It stays so,
    also when ``on_gap`` was told and the stream has gone on."""


@final
class SubscriptionStats(msgspec.Struct, frozen=True, kw_only=True):
    """Statistics of a subscription so far.

    ``received`` is always the sum of ``handled``, ``filtered``, ``dropped`` and ``buffered_events``.

    :ivar received: events that arrived with a value.
    :ivar handled: events that handlers have seen or an iterator has handed out.
    :ivar filtered: events that filters kept from the consumer.
    :ivar dropped: events that nobody got: dropped by the overflow policy ``drop_oldest``, the one over which
        ``fail`` ended it, and those that were buffered when it was unsubscribed.
    :ivar pauses: how often the stream was stopped because the buffer was full.
    :ivar gaps: how often events were missing, and it was told.
    :ivar operation_errors: events that carried GraphQL errors.
    :ivar handler_errors: how often handlers raised.
    :ivar buffered_events: events waiting for a consumer now.
    :ivar buffered_bytes: their encoded size.
    :ivar paused_seconds: for how long its stream has been stopped, because its consumer is behind: what the
        server has sent to others since is not here. 0 while the stream flows.
    """

    received: int
    handled: int
    filtered: int
    dropped: int
    pauses: int
    gaps: int
    operation_errors: int
    handler_errors: int
    buffered_events: int
    buffered_bytes: int
    paused_seconds: float = 0.0
