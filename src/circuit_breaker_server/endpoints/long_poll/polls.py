"""Answer long polls: each joins its channels, collects their events, and leaves."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import final

from circuit_breaker_server.access.caller import OPEN, Caller
from circuit_breaker_server.endpoints.long_poll.poll_request import (
    MAX_WAIT_MS,
    PollOperation,
    PollRequest,
    UnreadableOperation,
)
from circuit_breaker_server.endpoints.long_poll.polled_operation import PolledOperation
from circuit_breaker_server.endpoints.long_poll.start_deadlines import Patience
from circuit_breaker_server.gateway.gateway import Gateway
from circuit_breaker_server.gateway.guarded_calls import call_each, guarded
from circuit_breaker_server.graphql.documents import Documents
from circuit_breaker_server.logs import get_logger
from circuit_breaker_server.security.authentication import REVOKED, Authenticator
from circuit_breaker_server.security.clock import Alarm

__all__ = ["Polls"]

logger = get_logger("polling")


@final
class Polls:
    """Answers polls, until it is stopped.

    Example::

        polls = Polls(gateway, documents, max_operations=2000, poll_bytes=1_048_576, begin_seconds=60)
        answer = await polls.answer(PollRequest(query="subscription { … }"), gone=client_left())
        polls.stop()
    """

    def __init__(
        self,
        gateway: Gateway,
        documents: Documents,
        *,
        max_operations: int,
        poll_bytes: int,
        begin_seconds: float,
        max_seconds: float = MAX_WAIT_MS / 1000,
        authenticator: Authenticator | None = None,
    ) -> None:
        """Settings are those of ``ServerSettings``; ``max_seconds`` ends a poll that still reads the log."""
        self._authenticator = authenticator or Authenticator()
        self.gateway = gateway
        self.documents = documents
        self.poll_bytes = poll_bytes
        self.max_seconds = max_seconds
        self.patience = Patience(begin_seconds)
        self._max_operations = max_operations
        self._open: set[_Poll] = set()
        self._is_stopped = False

    def __len__(self) -> int:
        """The number of polls that are being answered."""
        return len(self._open)

    async def answer(
        self,
        request: PollRequest,
        *,
        gone: Awaitable[None],
        caller: Caller = OPEN,
        traces: bool = False,
    ) -> bytes:
        """Answer one poll; ``gone`` ends when its client disconnects, which ends the wait.

        It waits no longer than the token of ``caller`` lasts, and answers with the events up to then.

        :param traces: whether the events shall have the traces of their mutations.
        :raises PollInvalid: the request is not valid.
        """
        leaving = asyncio.ensure_future(gone)
        poll: _Poll | None = None
        token_end: Alarm | None = None
        try:
            poll = _Poll(self, request.asked(max_operations=self._max_operations), caller, traces=traces)
            self._open.add(poll)
            leaving.add_done_callback(poll.stop)
            token_end = self._authenticator.at_end(caller.principal, poll.stop)
            if self._is_stopped:
                poll.stop()
            results = await poll.results(wait_seconds=request.wait_ms / 1000)
            return results[0] if request.operations is None else b'{"results":[%b]}' % b",".join(results)
        finally:
            if token_end is not None:
                token_end.cancel()
            if poll is not None:
                self._open.discard(poll)
                poll.close()
                poll.forget()
            leaving.cancel()
            await asyncio.gather(leaving, return_exceptions=True)

    def review(self) -> None:
        """Look again at what the waiting callers may see: rights have changed."""
        call_each(self._open, _Poll.review, _on_poll_error)

    def revoke(self, key_id: str) -> None:
        """End the waiting polls whose API key is no longer accepted, with an answer."""
        revoked = [poll for poll in self._open if poll.caller.principal.key_id == key_id]
        call_each(revoked, _Poll.revoke, _on_poll_error)

    def closers(self) -> list[Callable[[], None]]:
        """Return for each waiting poll what answers it."""
        return [partial(guarded, poll, _Poll.stop, _on_poll_error, otherwise=None) for poll in self._open]

    def stop(self) -> None:
        """Answer every poll at once, those to come too: the server closes."""
        self._is_stopped = True
        call_each(self._open, _Poll.stop, _on_poll_error)


@final
class _Poll:
    """One request: its operations, and the bytes they may take together."""

    def __init__(
        self,
        polls: Polls,
        asked: Sequence[PollOperation | UnreadableOperation],
        caller: Caller,
        *,
        traces: bool,
    ) -> None:
        self.polls = polls
        self.caller = caller
        self._taken_bytes = 0
        self._is_full = False
        self._is_due = False
        self._is_stopped = False
        self._changed = asyncio.Event()
        self._operations = [
            PolledOperation(
                self,
                each,
                gateway=polls.gateway,
                documents=polls.documents,
                patience=polls.patience,
                traces=traces,
            )
            for each in asked
        ]

    def take(self, size_bytes: int) -> bool:
        """Tell whether an event still fits; the first one always does."""
        limit = self.polls.poll_bytes
        fits = not self._taken_bytes or self._taken_bytes + size_bytes <= limit
        if fits:
            self._taken_bytes += size_bytes
        if not fits or self._taken_bytes >= limit:
            self._is_full = True
            for operation in self._operations:
                operation.feed.set_writable(False)
        return fits

    def changed(self) -> None:
        """Look again whether to answer."""
        self._changed.set()

    def stop(self, _cause: object = None) -> None:
        """Wait no longer."""
        self._is_stopped = True
        self._changed.set()

    def revoke(self) -> None:
        """End the wait: the API key is no longer accepted."""
        # Stopped first: it ends also where its line cannot be written.
        self.stop()
        self.caller.audit.note(self.caller, "revoke", "poll", "ended", reason=REVOKED)

    def review(self) -> None:
        """Look again at what may be seen."""
        review = self.polls.gateway.review
        call_each(self._operations, lambda operation: review(operation.feed), PolledOperation.end_failed)

    def drop(self) -> None:
        """End every operation with an internal error."""
        call_each(self._operations, PolledOperation.drop, PolledOperation.end_failed)
        self.stop()

    def close(self) -> None:
        """Leave every channel. Idempotent."""
        subscribed = [operation for operation in self._operations if not operation.feed.closed]
        call_each(subscribed, PolledOperation.leave, PolledOperation.end_failed)

    def forget(self) -> None:
        """Let go of the operations, each of which holds the poll."""
        self._operations.clear()

    @property
    def _is_answerable(self) -> bool:
        if self._is_stopped or self._is_full:
            return True
        # What is there already is read first, however short the wait: one answer carries it.
        operations = self._operations
        return all(each.settled for each in operations) and (
            self._is_due or any(each.has_news for each in operations)
        )

    async def results(self, *, wait_seconds: float) -> Sequence[bytes]:
        """Subscribe, wait for something to tell, leave, and tell it, operation by operation."""
        # Where the bytes do not suffice for all, those furthest behind are read first, so that none starves.
        in_order = sorted(self._operations, key=lambda each: each.place)
        for operation in in_order:
            if not self._is_stopped:
                await operation.read()
        slices, key = self.polls.documents.slices, self.caller.id or self.caller.address
        async for operation in slices.over(in_order, key):
            call_each((operation,), PolledOperation.subscribe, PolledOperation.end_failed)
        loop = asyncio.get_running_loop()
        timers = [
            loop.call_later(wait_seconds, self._on_due),
            loop.call_later(self.polls.max_seconds, self.stop),
        ]
        try:
            while not self._is_answerable:
                self._changed.clear()
                await self._changed.wait()
        finally:
            for timer in timers:
                timer.cancel()
        results: list[bytes] = []
        async for operation in slices.over(self._operations, key):
            place = guarded(operation, PolledOperation.reached, PolledOperation.end_failed, otherwise=None)
            call_each((operation,), PolledOperation.leave, PolledOperation.end_failed)
            if place is not None:
                await operation.move_to(place)
            results.append(operation.result())
        return results

    def _on_due(self) -> None:
        self._is_due = True
        self._changed.set()


def _on_poll_error(poll: _Poll, error: Exception) -> None:
    """Answer a poll that has raised: it may not go on by rights that were taken away."""
    logger.error("poll_failed", address=poll.caller.address, principal=poll.caller.id, exc_info=error)
    poll.drop()
