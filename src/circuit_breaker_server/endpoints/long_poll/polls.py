"""Answer long polls: each joins its channels, collects their events, and leaves."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from typing import Final, final

import msgspec
from graphql import OperationType

from circuit_breaker_sdk.errors import GraphQLError
from circuit_breaker_server.access.caller import OPEN, Caller
from circuit_breaker_server.endpoints.long_poll.poll_request import (
    MAX_WAIT_MS,
    PollOperation,
    PollRequest,
    UnreadableOperation,
)
from circuit_breaker_server.endpoints.long_poll.start_deadlines import Patience
from circuit_breaker_server.engine.cursor import Cursor
from circuit_breaker_server.gateway.channel import Position
from circuit_breaker_server.gateway.fan_out import Gateway, resume_after
from circuit_breaker_server.gateway.feed import internal_error
from circuit_breaker_server.gateway.guarded_calls import call_each, guarded
from circuit_breaker_server.gateway.subscription_plan import Plan, Refused, make_plan
from circuit_breaker_server.graphql.documents import Document, Documents
from circuit_breaker_server.graphql.errors import DocumentInvalid
from circuit_breaker_server.graphql.execute import error_value
from circuit_breaker_server.log.event_log import LogError
from circuit_breaker_server.logs import get_logger
from circuit_breaker_server.security.authentication import REVOKED, Authenticator
from circuit_breaker_server.security.clock import Alarm

__all__ = ["Polls"]

_OPERATION_ID: Final = "poll"
_END: Final = b"\0"
"""Ends each payload of a write; nothing in JSON can be it, inside or outside of strings."""

_encode: Final = msgspec.json.Encoder().encode

logger = get_logger("polling")


class _Resume(msgspec.Struct):
    cursor: str


class _Extensions(msgspec.Struct):
    resume: _Resume


class _Event(msgspec.Struct):
    extensions: _Extensions


_event: Final = msgspec.json.Decoder(_Event)


def _framed(_prefix_bytes: int, payloads: Sequence[bytes]) -> Sequence[bytes]:
    return [payload + _END for payload in payloads]  # the prefix between them is empty


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

    async def answer(self, request: PollRequest, *, gone: Awaitable[None], caller: Caller = OPEN) -> bytes:
        """Answer one poll; ``gone`` ends when its client disconnects, which ends the wait.

        It waits no longer than the token of ``caller`` lasts, and answers with the events up to then.

        :raises PollInvalid: the request is not valid.
        """
        leaving = asyncio.ensure_future(gone)
        poll: _Poll | None = None
        token_end: Alarm | None = None
        try:
            poll = _Poll(self, request.asked(max_operations=self._max_operations), caller)
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
        """Look again at what those who wait may see: rights have changed."""
        call_each(self._open, _Poll.review, _on_poll_error)

    def revoke(self, key_id: str) -> None:
        """End the waiting polls whose API key is no longer accepted, with an answer."""
        revoked = [poll for poll in self._open if poll.caller.principal.key_id == key_id]
        call_each(revoked, _Poll.revoke, _on_poll_error)

    def stop(self) -> None:
        """Answer every poll at once, those to come too: the server closes."""
        self._is_stopped = True
        call_each(self._open, _Poll.stop, _on_poll_error)


@final
class _Poll:
    """One request: its operations, and the bytes they may take together."""

    def __init__(
        self, polls: Polls, asked: Sequence[PollOperation | UnreadableOperation], caller: Caller
    ) -> None:
        self.polls = polls
        self.caller = caller
        self._taken_bytes = 0
        self._is_full = False
        self._is_due = False
        self._is_stopped = False
        self._changed = asyncio.Event()
        self._operations = [_Operation(self, each) for each in asked]

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
        call_each(self._operations, lambda operation: review(operation.feed), _Operation.end_failed)

    def drop(self) -> None:
        """End every operation with an internal error."""
        call_each(self._operations, _Operation.drop, _Operation.end_failed)
        self.stop()

    def close(self) -> None:
        """Leave every channel. Idempotent."""
        subscribed = [operation for operation in self._operations if not operation.feed.closed]
        call_each(subscribed, _Operation.leave, _Operation.end_failed)

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
            call_each((operation,), _Operation.subscribe, _Operation.end_failed)
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
            place = guarded(operation, _Operation.reached, _Operation.end_failed, otherwise=None)
            call_each((operation,), _Operation.leave, _Operation.end_failed)
            if place is not None:
                await operation.move_to(place)
            results.append(operation.result())
        return results

    def _on_due(self) -> None:
        self._is_due = True
        self._changed.set()


@final
class _Operation:
    """One operation of a poll: the peer of a feed of its own, so that a write is of this operation only.

    :ivar settled: there is, or was a moment ago, nothing more for it to be read.
    :ivar place: of the cursor it goes on after, to compare how far behind operations are.
    """

    def __init__(self, poll: _Poll, asked: PollOperation | UnreadableOperation) -> None:
        self._poll = poll
        self._polls = poll.polls
        self._asked = asked
        self._document: Document | Sequence[GraphQLError] | None = None
        self._after: str | None = None
        self._events: list[bytes] = []
        self._cursor: str | None = None
        self._errors: Sequence[GraphQLError] = ()
        self._is_done = False
        self._is_start = False
        self._is_cut = False
        self.settled = False
        self.place: Position = (0, 0)
        self.feed = self._polls.gateway.attach(self, frame=_framed, resume=True, caller=poll.caller)
        try:
            if isinstance(asked, PollOperation):
                self._after = resume_after(asked.extensions)
            if self._after is not None:
                cursor = self._polls.gateway.reader.cursors.parse(self._after)
                self.place = (cursor.offset, cursor.index)
        except (Refused, ValueError):
            pass  # said when it subscribes

    @property
    def has_news(self) -> bool:
        return bool(self._events) or self._is_done or self._is_start

    # --- before the waiting ------------------------------------------------------------------------

    async def read(self) -> None:
        """Read the document in its turn; what is wrong with it is said by :meth:`subscribe`."""
        asked = self._asked
        if isinstance(asked, UnreadableOperation):
            return
        caller = self._poll.caller
        try:
            self._document = await self._polls.documents.read(
                asked.query, asked.variables, key=caller.id or caller.address
            )
        except DocumentInvalid as error:
            self._document = error.errors

    def subscribe(self) -> None:
        """Join the channel; what is wrong with the operation becomes its errors."""
        try:
            self._subscribe()
        except (DocumentInvalid, Refused) as error:
            self.fail(_OPERATION_ID, error.errors)
        except Exception:
            logger.exception("subscribe_failed")
            self.fail(_OPERATION_ID, [internal_error()])

    def _subscribe(self) -> None:
        asked = self._asked
        if isinstance(asked, UnreadableOperation):
            raise Refused([GraphQLError(message=asked.reason, extensions={"code": "BAD_REQUEST"})])
        document = self._document
        if document is None:
            return  # the poll was stopped before it was read: the next one asks again
        if not isinstance(document, Document):
            raise Refused(document)
        plan = self._plan(asked, document)
        after = resume_after(asked.extensions)
        if after is None:
            # Only the start position is asked for: events are for the next poll.
            self.feed.set_writable(False)
            self._is_start = self.settled = True
        caller, pacing = self._poll.caller, self._polls.gateway.pacing
        self._polls.gateway.subscribe(
            self.feed,
            _OPERATION_ID,
            plan,
            prefix=b"",
            after=after,
            patience=lambda: self._polls.patience.left(plan.key, anew=after is None),
            bucket=None if pacing is None else pacing.bucket_of((caller.id or caller.address, plan.key)),
        )

    def _plan(self, asked: PollOperation, document: Document) -> Plan:
        operation = document.operation(asked.operation_name)
        if operation.operation is not OperationType.SUBSCRIPTION:
            message = f"only subscriptions are polled: post this {operation.operation.value} to /graphql"
            raise Refused([GraphQLError(message=message, extensions={"code": "OPERATION_NOT_SUPPORTED"})])
        return make_plan(
            self._polls.documents.schema,
            document,
            variables=asked.variables,
            operation_name=asked.operation_name,
        )

    # --- the peer of the feed ----------------------------------------------------------------------

    def write(self, frames: bytes) -> None:
        """Take events up to the bound of the poll; the others are read again by the next."""
        if self._is_done or self._is_cut:
            return
        for payload in frames.split(_END)[:-1]:
            if not self._poll.take(len(payload)):
                self._is_cut = True
                break
            self._events.append(payload)
        if self._events:
            self._cursor = _event.decode(self._events[-1]).extensions.resume.cursor
        if self.feed.subscribers[_OPERATION_ID].is_current:
            self.settled = True
        self._poll.changed()

    def signal(self, cursors: Sequence[tuple[str, str]]) -> None:
        """Take the place from which nothing is missed."""
        if not self._is_cut:
            ((_, self._cursor),) = cursors

    def caught_up(self, _operation_id: str) -> None:
        """Hear that what was there is read."""
        self.settled = True
        self._poll.changed()

    def fail(self, _operation_id: str, errors: Sequence[GraphQLError]) -> None:
        """End with errors, after the events that were taken."""
        if not self._is_cut:
            self._errors = errors
            self._end()

    def complete(self, _operation_id: str) -> None:
        """End: the last event was taken."""
        if not self._is_cut:
            self._end()

    def drop(self) -> None:
        """End with an internal error, after the events that were taken."""
        self._errors = [internal_error()]
        self._end()

    def end_failed(self, error: Exception) -> None:
        """End an operation that has raised."""
        name = self._asked.operation_name if isinstance(self._asked, PollOperation) else None
        logger.error("operation_failed", operation=name, exc_info=error)
        self.drop()

    def _end(self) -> None:
        self._is_done = self.settled = True
        self._poll.changed()

    # --- after the waiting -------------------------------------------------------------------------

    def reached(self) -> Cursor | Position | None:
        """Return the place up to which nothing matched, where that is behind the cursor; while subscribed."""
        subscriber = self.feed.subscribers.get(_OPERATION_ID)
        if subscriber is None or subscriber.unverified is not None or self.has_news or self._is_cut:
            return None
        gateway = self._polls.gateway
        if subscriber.is_current:
            return gateway.end_cursor if self.place < gateway.end else None
        # Still reading: go on from the last page, or a log longer than one poll would never be read through.
        return subscriber.position if subscriber.position[0] > self.place[0] else None

    def leave(self) -> None:
        """Leave the channel."""
        self._polls.gateway.detach(self.feed)

    async def move_to(self, place: Cursor | Position) -> None:
        """Move the cursor on."""
        if isinstance(place, Cursor):
            self._cursor = self._polls.gateway.reader.cursors.of(place)
            return
        try:
            cursor = await self._polls.gateway.reader.cursor_at(place[0])
        except LogError:
            return  # from where it was, then
        except Exception as error:  # noqa: BLE001 (the other operations are answered)
            self.end_failed(error)
            return
        if cursor is not None:
            self._cursor = self._polls.gateway.reader.cursors.of(cursor)

    def result(self) -> bytes:
        """Return this operation's part of the answer."""
        cursor = self._cursor
        if cursor is None and not self._is_done:
            cursor = self._after
        done = b"true" if self._is_done else b"false"
        errors = b"" if not self._errors else b',"errors":' + _encode([error_value(e) for e in self._errors])
        return b'{"events":[%b],"cursor":%b,"done":%b%b}' % (
            b",".join(self._events),
            _encode(cursor),
            done,
            errors,
        )


def _on_poll_error(poll: _Poll, error: Exception) -> None:
    """Answer a poll that has raised: it may not go on by rights that were taken away."""
    logger.error("poll_failed", address=poll.caller.address, principal=poll.caller.id, exc_info=error)
    poll.drop()
