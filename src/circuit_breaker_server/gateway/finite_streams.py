"""Finite streams: where one begins, and the end of a subscription to one that does not begin in time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Final, final

from circuit_breaker_sdk.errors import GraphQLError
from circuit_breaker_server.engine.cursor import Cursor
from circuit_breaker_server.engine.errors import EngineError, ErrorCode
from circuit_breaker_server.engine.events import Finite
from circuit_breaker_server.gateway.event_reader import LogReader
from circuit_breaker_server.gateway.feed import Feed
from circuit_breaker_server.gateway.guarded_calls import guarded
from circuit_breaker_server.gateway.permission_review import Look
from circuit_breaker_server.gateway.subscriber import Subscriber
from circuit_breaker_server.gateway.subscription_errors import missing_error

__all__ = ["FiniteStreams"]

_NO_LONGER_KEPT: Final = "the beginning of this stream is no longer kept: the server's event log was trimmed"


@final
class FiniteStreams:
    """The beginnings of streams that end.

    Example::

        finite_streams = FiniteStreams(reader, look, begin_seconds=60.0, fail=fail, end_subscription=end)
        begun = finite_streams.beginning(finite, is_resumed=False)
        if begun is None:
            finite_streams.give_up_later(subscriber)
    """

    def __init__(
        self,
        reader: LogReader,
        look: Look,
        *,
        begin_seconds: float,
        fail: Callable[[Subscriber[Feed], Sequence[GraphQLError]], None],
        end_subscription: Callable[[Subscriber[Feed], Exception], None],
    ) -> None:
        """Wait ``begin_seconds`` for a beginning. ``fail`` and ``end_subscription`` are the gateway's."""
        self._reader = reader
        self._look = look
        self._begin_seconds = begin_seconds
        self._fail = fail
        self._end_subscription = end_subscription

    def beginning(self, finite: Finite, *, is_resumed: bool) -> Cursor | None:
        """Return where a finite stream begins, ``None`` if it has not begun.

        :raises EngineError: it cannot be read, or not from there.
        """
        begun = finite.start()
        if begun is not None and not is_resumed and begun.offset + 1 < self._reader.log.first_offset:
            raise EngineError(ErrorCode.NOT_FOUND, _NO_LONGER_KEPT)
        return begun

    def give_up_later(
        self, subscriber: Subscriber[Feed], patience: Callable[[], float] | None = None
    ) -> None:
        """End a subscription with an error if its stream does not begin in time.

        :param patience: tells how many seconds are left; ``None``: all.
        """
        seconds = self._begin_seconds if patience is None else patience()
        subscriber.deadline = asyncio.get_running_loop().call_later(seconds, self._on_deadline, subscriber)

    def _on_deadline(self, subscriber: Subscriber[Feed]) -> None:
        guarded(subscriber, self._give_up, self._end_subscription, otherwise=None)

    def _give_up(self, subscriber: Subscriber[Feed]) -> None:
        """End a finite stream that has not begun, or that has begun and is not to be seen."""
        plan, finite = subscriber.channel.plan, subscriber.channel.selection.finite
        if finite is None:
            return
        is_there = finite.start() is not None
        view = self._look(subscriber.feed.caller.rights, plan.field, plan.arguments)
        if not is_there or view.hides:
            self._fail(subscriber, [missing_error(plan, finite)])
