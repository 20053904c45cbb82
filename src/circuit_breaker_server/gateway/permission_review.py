"""Review live subscriptions when the permissions of their principal change."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias, final

from circuit_breaker_sdk.errors import GraphQLError
from circuit_breaker_server.access.streams import View
from circuit_breaker_server.gateway.channel import Position
from circuit_breaker_server.gateway.event_reader import LogReader
from circuit_breaker_server.gateway.fan_out import FanOut
from circuit_breaker_server.gateway.feed import Feed
from circuit_breaker_server.gateway.guarded_calls import call_each
from circuit_breaker_server.gateway.subscriber import Subscriber
from circuit_breaker_server.gateway.subscription_errors import missing_error
from circuit_breaker_server.security.rights import Rights

__all__ = ["Look", "PermissionReview"]

Look: TypeAlias = Callable[[Rights, str, Mapping[str, object]], View]
"""Returns the view of a subscription for a caller's rights, by the stream's field and arguments."""


@final
class PermissionReview:
    """Move each subscription of a peer to what the peer may see now; end those that it may not see at all."""

    def __init__(
        self,
        look: Look,
        fan_out: FanOut,
        reader: LogReader,
        *,
        end: Callable[[], Position],
        fail: Callable[[Subscriber[Feed], Sequence[GraphQLError]], None],
        end_subscription: Callable[[Subscriber[Feed], Exception], None],
    ) -> None:
        """``end``: the present end of the log. ``fail`` and ``end_subscription`` are the gateway's."""
        self._look = look
        self._fan_out = fan_out
        self._reader = reader
        self._end = end
        self._fail = fail
        self._end_subscription = end_subscription

    def review(self, feed: Feed) -> None:
        """Review the subscriptions of one peer; they go on from where they are.

        Each is reviewed for itself: one that cannot be reviewed ends, and the others keep no old rights.
        """
        call_each(feed.subscribers.values(), self._review, self._end_subscription)

    def _review(self, subscriber: Subscriber[Feed]) -> None:
        if subscriber.ended:  # with its peer, in the review of another one
            return
        feed, channel = subscriber.feed, subscriber.channel
        plan = channel.plan
        view = self._look(feed.caller.rights, plan.field, plan.arguments)
        if view.key == channel.view.key:
            return
        other = self._fan_out.channel(plan, view)
        try:
            finite = other.selection.finite
            if view.hides and finite is not None:
                self._fail(subscriber, [missing_error(plan, finite)])
                return
            begun = None if finite is None else finite.start()
            if begun is not None:
                # It is told whole: from the last event that was seen, or from its beginning.
                last = self._reader.cursors.parse(subscriber.cursor)
                subscriber.position = max((begun.offset, begun.index), (last.offset, last.index))
            elif subscriber.is_current:
                subscriber.position = max(subscriber.position, self._end())
            self._fan_out.leave(subscriber)
            self._fan_out.join(subscriber, other)
        finally:
            self._fan_out.close_if_empty(other)
        feed.move(subscriber, other)
