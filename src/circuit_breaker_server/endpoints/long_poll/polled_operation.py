"""Serve one operation of a long poll: subscribe, collect its events, leave, write its part of the answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Protocol, final

import msgspec
from graphql import OperationType

from circuit_breaker_sdk.errors import GraphQLError
from circuit_breaker_server.access.caller import Caller
from circuit_breaker_server.endpoints.long_poll.poll_request import PollOperation, UnreadableOperation
from circuit_breaker_server.endpoints.long_poll.start_deadlines import Patience
from circuit_breaker_server.engine.cursor import Cursor
from circuit_breaker_server.gateway.channel import Position
from circuit_breaker_server.gateway.gateway import Gateway
from circuit_breaker_server.gateway.resume_cursor import resume_after
from circuit_breaker_server.gateway.subscription_errors import internal_error
from circuit_breaker_server.gateway.subscription_plan import Plan, Refused, make_plan
from circuit_breaker_server.graphql.documents import Document, Documents
from circuit_breaker_server.graphql.errors import DocumentInvalid
from circuit_breaker_server.graphql.execute import error_value
from circuit_breaker_server.log.event_log import LogError
from circuit_breaker_server.logs import get_logger
from circuit_breaker_server.refusals import Refusal

__all__ = ["OperationOwner", "PolledOperation"]

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


class OperationOwner(Protocol):
    """The poll that an operation belongs to."""

    @property
    def caller(self) -> Caller:
        """The caller of the poll."""
        ...

    def take(self, size_bytes: int) -> bool:
        """Tell whether an event still fits into the answer."""
        ...

    def changed(self) -> None:
        """Look again whether to answer."""
        ...


@final
class PolledOperation:
    """One operation of a poll: the peer of a feed of its own, so that a write is of this operation only.

    Example::

        operation = PolledOperation(poll, asked, gateway=gateway, documents=documents, patience=patience)
        await operation.read()
        operation.subscribe()
        …
        operation.leave()
        answer = operation.result()

    :ivar settled: there is, or was a moment ago, nothing more for it to be read.
    :ivar place: of the cursor it goes on after, to compare how far behind operations are.
    """

    def __init__(
        self,
        poll: OperationOwner,
        asked: PollOperation | UnreadableOperation,
        *,
        gateway: Gateway,
        documents: Documents,
        patience: Patience,
        traces: bool = False,
    ) -> None:
        """``traces`` tells whether its events shall have the traces of their mutations."""
        self._poll = poll
        self._gateway = gateway
        self._documents = documents
        self._patience = patience
        self._asked = asked
        self._document: Document | Sequence[GraphQLError] | None = None
        self._after: str | None = None
        self._events: list[bytes] = []
        self._cursor: str | None = None
        self._errors: Sequence[GraphQLError] = ()
        self._is_done = False
        self._is_start = False
        self._wants_start = False
        self._is_cut = False
        self.settled = False
        self.place: Position = (0, 0)
        self.feed = self._gateway.attach(
            self, frame=_framed, resume=True, caller=poll.caller, is_lasting=False, traces=traces
        )
        try:
            if isinstance(asked, PollOperation):
                self._after = resume_after(asked.extensions)
            if self._after is not None:
                cursor = self._gateway.reader.cursors.parse(self._after)
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
            self._document = await self._documents.read(
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
            self._note_refusal("malformed")
            raise Refused([GraphQLError(message=asked.reason, extensions={"code": "BAD_REQUEST"})])
        document = self._document
        if document is None:
            return  # the poll was stopped before it was read: the next one asks again
        try:
            plan = self._plan(asked, document)
        except (DocumentInvalid, Refused):
            self._note_refusal("invalid")
            raise
        after = resume_after(asked.extensions)
        # Only the start position is asked for: events are for the next poll.
        self._wants_start = after is None
        caller, pacing = self._poll.caller, self._gateway.pacing
        self._gateway.subscribe(
            self.feed,
            _OPERATION_ID,
            plan,
            prefix=b"",
            extensions=asked.extensions,
            patience=lambda: self._patience.left(plan.key, anew=after is None),
            bucket=None if pacing is None else pacing.bucket_of((caller.id or caller.address, plan.key)),
        )

    def _note_refusal(self, reason: Refusal) -> None:
        """Count and log an operation that is not begun; the gateway does so for those that it refuses."""
        caller = self._poll.caller
        self._gateway.instruments.refusals.note(
            reason, "operation", remote=caller.address, principal=caller.id
        )

    def _plan(self, asked: PollOperation, document: Document | Sequence[GraphQLError]) -> Plan:
        if not isinstance(document, Document):
            raise Refused(document)
        operation = document.operation(asked.operation_name)
        if operation.operation is not OperationType.SUBSCRIPTION:
            message = f"only subscriptions are polled: post this {operation.operation.value} to /graphql"
            raise Refused([GraphQLError(message=message, extensions={"code": "OPERATION_NOT_SUPPORTED"})])
        return make_plan(
            self._documents.schema,
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
        if self._wants_start:
            self._is_start = self.settled = True
            self.feed.set_writable(False)
            self._poll.changed()

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
        if subscriber.is_current:
            return self._gateway.end_cursor if self.place < self._gateway.end else None
        # Still reading: go on from the last page, or a log longer than one poll would never be read through.
        return subscriber.position if subscriber.position[0] > self.place[0] else None

    def leave(self) -> None:
        """Leave the channel."""
        self._gateway.detach(self.feed)

    async def move_to(self, place: Cursor | Position) -> None:
        """Move the cursor on."""
        if isinstance(place, Cursor):
            self._cursor = self._gateway.reader.cursors.of(place)
            return
        try:
            cursor = await self._gateway.reader.cursor_at(place[0])
        except LogError:
            return  # from where it was, then
        except Exception as error:  # noqa: BLE001 (the other operations are answered)
            self.end_failed(error)
            return
        if cursor is not None:
            self._cursor = self._gateway.reader.cursors.of(cursor)

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
