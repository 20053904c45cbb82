"""From a connection's read callback to a handler or a buffer: the inside of a subscription.

The public :class:`~circuit_breaker_sdk.subscriptions.subscription.Subscription` holds a delivery, never the
other way round: the registry and the connection know the delivery only, so that a subscription without
references can be noticed.

This file is longer than others on purpose: it is the counted hot path (``make hot-path``), and a call into
another object for each event would cost more than reading on does.
"""

from __future__ import annotations

import asyncio
import logging
import operator
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final, Generic, Protocol, TypeVar, final

import msgspec

from circuit_breaker_sdk.callbacks import CALLBACK_ERRORS
from circuit_breaker_sdk.config import BufferLimits, OverflowPolicy
from circuit_breaker_sdk.connections import Envelope, Link
from circuit_breaker_sdk.delivery.buffer import BufferBudget
from circuit_breaker_sdk.delivery.consumer import NEVER, Consumer
from circuit_breaker_sdk.delivery.decoding import (
    EventDecoder,
    Response,
    Resume,
    UnfitPayloadError,
    read_errors,
)
from circuit_breaker_sdk.delivery.fallbacks import NO_FALLBACKS, Fallbacks
from circuit_breaker_sdk.delivery.operation_errors import OperationErrors
from circuit_breaker_sdk.delivery.resume_by import ExtensionSeam, Seam, VariableSeam, names_cursor
from circuit_breaker_sdk.delivery.server_error_mapping import server_error
from circuit_breaker_sdk.delivery.subscription_state import (
    TRANSITIONS,
    Continuity,
    SubscriptionId,
    SubscriptionState,
    SubscriptionStats,
    Trigger,
)
from circuit_breaker_sdk.errors import (
    BufferOverflowError,
    CircuitBreakerError,
    DecodeError,
    GapError,
    GraphQLError,
    OperationError,
    RateLimitExceeded,
    StreamFailure,
)
from circuit_breaker_sdk.observability import log
from circuit_breaker_sdk.protocol.messages import Subscribe

__all__ = ["PROOF_SECONDS", "Delivery", "Look", "Owner"]

T = TypeVar("T")

PROOF_SECONDS = 5.0
"""A subscription that has lived so long is none at which the server closes the connection."""

PROOF_EVENTS: Final = 2
"""So many events prove a connection: the first may be a replay that the next loss repeats for ever."""

_LIVE = SubscriptionState.LIVE
_payload_of = operator.attrgetter("payload")

_ENOUGH_EVENTS: Final = 256
"""Where so many wait, the consumer goes first: what waits longer leaves the processor's cache."""


@final
class Look:
    """State of a subscription when its client's health was asked for last.

    :ivar events: how many it had received by then.
    :ivar event_at: when the last of them came, to the time between two looks.
    :ivar taken: how many its consumer had taken.
    :ivar waiting_since: since when events wait and none is taken; ``None`` where none waits.
    :ivar behind: how many records the server has said that it is behind; ``None`` before it has.
    """

    __slots__ = ("behind", "event_at", "events", "taken", "waiting_since")

    def __init__(self) -> None:
        self.events: int = 0
        self.event_at: float | None = None
        self.taken: int = 0
        self.waiting_since: float | None = None
        self.behind: int | None = None


class Owner(Protocol):
    """Interface from a delivery to its owner. Any: one owner has deliveries of all event types."""

    def lost(self, delivery: Delivery[Any], error: StreamFailure, *, after_seconds: float = 0.0) -> None:
        """Decide what becomes of a subscription that has lost its connection, or has to wait.

        The owner calls :meth:`Delivery.give_up` or :meth:`Delivery.await_link`, before it returns.
        """
        ...

    def resume(self, delivery: Delivery[Any], *, after_seconds: float = 0.0) -> None:
        """Put a subscription that is on no connection back on one, from its cursor."""
        ...

    def missed(self, delivery: Delivery[Any], error: GapError) -> None:
        """Decide what becomes of a subscription that misses events: give it up, or carry it over the gap.

        The owner calls :meth:`Delivery.give_up` or :meth:`Delivery.await_bridge`, before it returns.
        """
        ...

    def uncertain(self, delivery: Delivery[Any]) -> None:
        """Take note of a subscription that goes on without a cursor: events may be missing."""
        ...

    def snapshot_of(self, delivery: Delivery[Any]) -> Callable[[], Awaitable[object]] | None:
        """Return what reads the present state behind a stream, ``None`` where nothing does."""
        ...

    def ended(self, delivery: Delivery[Any]) -> None:
        """Forget one."""
        ...


class Delivery(Generic[T]):
    """One running subscription: a :class:`~circuit_breaker_sdk.connections.Route` with a consumer behind.

    Moving it to another connection's share sets its ``owner``.

    Two cursors are kept: ``received``, to resume from after a lost connection, and ``handled``, which
    advances when a handler has returned or the next event is asked for. Everything runs on one loop.

    :ivar begin: where it begins if that is neither now nor behind a cursor, as ``extensions.resume`` says it.
    :ivar has_begun: it was live once, or has ended.
    :ivar look: what was seen of it when the client's health was asked for last.
    :ivar signal_at: when the server has said last that it is live, or has missed nothing.
    """

    __slots__ = (
        "__weakref__",
        "_begun",
        "_blocks",
        "_decode",
        "_decoder",
        "_events",
        "_events_before",
        "_handled_in_run",
        "_has_cursors",
        "_is_confirmed",
        "_is_live",
        "_is_off",
        "_is_stopped",
        "_last_cursor",
        "_limits",
        "_link",
        "_none_allowed",
        "_off_at",
        "_operation_errors",
        "_paused_at",
        "_put_on_at",
        "_reads_cursors",
        "_settled",
        "_started",
        "_was_lost",
        "begin",
        "consumer",
        "continuity",
        "decode_next",
        "error",
        "fallbacks",
        "gaps",
        "has_begun",
        "id",
        "label",
        "last_error",
        "look",
        "owner",
        "pauses",
        "received",
        "request",
        "seam",
        "signal_at",
        "state",
        "was_proven",
    )

    def __init__(
        self,
        *,
        label: str,
        decoder: EventDecoder[T],
        limits: BufferLimits,
        budget: BufferBudget,
        link: Link,
        request: Subscribe,
        owner: Owner,
        tasks: set[asyncio.Task[None]],
        after: str | None = None,
    ) -> None:
        """``after``: the cursor that the request resumes from."""
        self.id: SubscriptionId = SubscriptionId(request.id)
        self.label: str = label
        self.state: SubscriptionState = SubscriptionState.STARTING
        self.error: StreamFailure | None = None
        self.last_error: CircuitBreakerError | None = None
        self.consumer: Consumer[T] = Consumer(
            self,
            limits=limits,
            budget=budget,
            tasks=tasks,
            after=after,
        )
        self._has_cursors = self._reads_cursors = link.resume_negotiated
        self._is_live = False  # asked for with every event, and cheaper to read than the state
        self._is_stopped = False
        self.received: str | None = after
        self.begin: Mapping[str, object] | None = None
        self.seam: Seam | None = None
        self.fallbacks: Fallbacks = NO_FALLBACKS
        self.continuity = Continuity.OK if link.resume_negotiated else Continuity.UNKNOWN
        # Those of the run whose handlers are being called are counted apart: small numbers make no objects.
        self._events = self._handled_in_run = 0
        self.pauses: int = 0
        self.gaps: int = 0
        self.request: Subscribe = request
        self.owner: Owner = owner
        self.has_begun: bool = False
        self.look: Look | None = None
        self.signal_at: float | None = None
        self._limits = limits
        self._blocks = limits.overflow is OverflowPolicy.BLOCK
        self._link = link
        self._decoder = decoder
        self._decode = decoder.decode
        self.decode_next: Callable[[bytes], Envelope] | None = decoder.decode_next
        self._none_allowed = decoder.none_allowed
        self._events_before = 0
        self._is_off = False
        self._is_confirmed = False
        self._was_lost = False
        self._last_cursor: str | None = after
        self._begun: asyncio.Future[None] | None = None
        self._settled: asyncio.Future[None] | None = None
        self.was_proven: bool = False
        """Whether it has proven itself on a link before the present one."""
        self._started = self._put_on_at = self._off_at = self._paused_at = time.perf_counter()
        self._operation_errors: OperationErrors | None = None  # most subscriptions have none

    def awaiting_begin(self) -> asyncio.Future[None]:
        """Return a future that is done when :attr:`has_begun` is set; it is not yet, and one task waits."""
        self._begun = self.consumer.loop.create_future()
        return self._begun

    # The route ---------------------------------------------------------------------------------------------

    def deliver(self, payload: bytes) -> bool:
        """Decode one execution result and hand it over."""
        try:
            response = self._decode(payload)
        except Exception:  # noqa: BLE001 (whatever it was, the full codec looks at the message again)
            return False
        return self.receive(response, payload)

    def receive(self, response: Response[T], text: bytes, around: int = 0) -> bool:  # noqa: PLR0911, PLR0912 (one call less per event)
        """Hand one execution result over: the hot path.

        :param text: it came in this.
        :param around: bytes of that which are not its own.
        """
        data = response.data
        value = None if data is None else data.value
        if value is None and not response.errors and (data is None or not self._none_allowed):
            return False
        self._events += 1
        if not self._is_live:
            self.go_live()
        if self._reads_cursors:
            extensions = response.extensions
            # `_follow`, without the call, where the event comes behind the last one: as it should.
            if extensions and (resume := extensions.resume) and resume.prev == self._last_cursor:
                self._last_cursor = self.received = resume.cursor
            elif not self._follow(None if extensions is None else extensions.resume):
                return True
        if response.errors:
            self._report_operation_errors(response, is_whole=value is None)
            if value is None:
                return True
        consumer = self.consumer
        if consumer.predicates and not consumer.passes(value):  # type: ignore[arg-type]  # None only if T allows it
            return True
        handler = consumer.inline
        if handler is None:
            size_bytes = max(len(text) - around, 1) if around else len(text)
            if consumer.buffer.add(response, size_bytes):
                if consumer.wake_at is not NEVER or consumer.on_ready is not None or self._blocks:
                    self._noticed()
            else:
                self._keep(response, size_bytes)
            return True
        try:
            result = handler(value)  # type: ignore[arg-type]  # as above
        except CALLBACK_ERRORS as error:
            consumer.handlers.report(handler, error)
        else:
            if result is not None and consumer.handlers.take_awaitable(handler, result, self._last_cursor):
                return True
        consumer.last_handled = self._last_cursor
        return True

    def receive_run(self, run: Sequence[Envelope], messages: Sequence[bytes], around: int) -> int:
        """Hand over the first messages of a run that come as they should; return how many.

        All of it is what :meth:`receive` does with each, where nothing has to be looked at more closely.
        """
        consumer = self.consumer
        if consumer.predicates or not self._reads_cursors or not self._is_live:
            return 0
        if consumer.inline is not None:
            return self._handle_run(run, consumer.inline)
        if self._blocks or consumer.on_ready is not None:
            return 0
        sizes = [*map(len, messages)]
        if min(sizes) <= around or not consumer.buffer.has_room(len(run), sum(sizes)):
            return 0
        return self._buffer_run(run, sizes, around)

    def receive_mixed(
        self,
        run: Sequence[Envelope],
        messages: Sequence[bytes],
        around: int,
        route_of: Callable[[str], Delivery[Any] | None],
    ) -> int:
        """Hand the first messages of a run to their deliveries, which decode alike; return how many."""
        taken, decode = 0, self.decode_next
        for envelope in run:
            delivery = route_of(envelope.id)
            if delivery is None or delivery.decode_next is not decode:
                break
            # As in `receive`, without the call, where nothing has to be looked at more closely.
            response: Response[Any] = envelope.payload
            consumer, data, extensions = delivery.consumer, response.data, response.extensions
            handler = consumer.inline
            if (
                handler is None
                or data is None
                or extensions is None
                or extensions.traceparent is not None
                or response.errors
                or consumer.predicates
                or not delivery._is_live  # noqa: SLF001 (one of its own kind)
                or (value := data.value) is None
                or (resume := extensions.resume) is None
                or resume.prev != delivery._last_cursor  # noqa: SLF001 (one of its own kind)
                or not delivery._reads_cursors  # noqa: SLF001 (one of its own kind)
            ):
                if not delivery.receive(response, messages[taken], around):
                    break
                taken += 1
                continue
            delivery._last_cursor = delivery.received = cursor = resume.cursor  # noqa: SLF001 (one of its own kind)
            delivery._events += 1  # noqa: SLF001 (one of its own kind)
            taken += 1
            try:
                result = handler(value)
            except CALLBACK_ERRORS as error:
                consumer.handlers.report(handler, error)
            else:
                if result is not None and consumer.handlers.take_awaitable(handler, result, cursor):
                    continue
            consumer.last_handled = cursor
        return taken

    def _handle_run(self, run: Sequence[Envelope], handler: Callable[[T], object]) -> int:
        taken, id_, cursor, consumer = 0, self.id, self._last_cursor, self.consumer
        consumer.run_goes_to = handler
        try:
            for envelope in run:
                response: Response[T] = envelope.payload
                data, extensions = response.data, response.extensions
                if envelope.id != id_ or data is None or extensions is None or response.errors:
                    break
                value, resume = data.value, extensions.resume
                if value is None or resume is None or resume.prev != cursor:
                    break
                self._last_cursor = self.received = cursor = resume.cursor
                self._handled_in_run = taken = taken + 1
                try:
                    result = handler(value)
                except CALLBACK_ERRORS as error:
                    consumer.handlers.report(handler, error)
                else:
                    if result is not None and consumer.handlers.take_awaitable(handler, result, cursor):
                        break
                consumer.last_handled = cursor
                if consumer.run_goes_to is not handler:
                    break
        finally:
            self._events += taken
            self._handled_in_run = 0
        return taken

    def _buffer_run(self, run: Sequence[Envelope], sizes: Sequence[int], around: int) -> int:
        count, id_, cursor = 0, self.id, self._last_cursor
        for envelope, whole in zip(run, sizes):  # noqa: B905 (as many of each)
            response: Response[T] = envelope.payload
            data, extensions = response.data, response.extensions
            if envelope.id != id_ or data is None or extensions is None or response.errors:
                break
            resume = extensions.resume
            if data.value is None or resume is None or resume.prev != cursor:
                break
            cursor = resume.cursor
            response.size_bytes = whole - around
            count += 1
        if count:
            self._last_cursor = self.received = cursor
            self._events += count
            buffer = self.consumer.buffer
            buffer.extend(map(_payload_of, run[:count]), sum(sizes[:count]) - count * around)
            if self.consumer.wake_at is not NEVER:
                self._noticed()
            elif len(buffer) >= _ENOUGH_EVENTS:
                self._link.let_consumers_run()
        return count

    def deliver_checked(self, payload: bytes) -> None:
        """Decode one execution result that the full codec has cut out; what does not fit ends us.

        A result with errors whose data does not fit is one without data: its errors are told.
        """
        self._decoder = self._decoder.learn(payload)
        self._decode, self.decode_next = self._decoder.decode, self._decoder.decode_next
        if self.deliver(payload):
            return
        failed = self._decoder.without_data(payload)
        if failed is None or not self.receive(failed, payload):
            detail = self._decoder.explain(payload)
            self.fail(DecodeError(self.id, type_name=self._decoder.type_name, detail=detail))

    def positioned(self, cursor: str) -> None:
        """Take the server's live signal, or its word that up to here nothing was for us."""
        if self.state.is_end:
            return
        self.received = cursor
        self._is_confirmed = True
        self.signal_at = time.perf_counter()
        if self.state is not _LIVE:
            if self._last_cursor is None:
                # The first event's `prev` is the start position (docs/resume.md, 4); later signals move only
                # the cursor to resume from.
                self._last_cursor = cursor
                if self.consumer.handled is None:
                    self.consumer.handled = cursor
            self.go_live()

    def accepted(self) -> None:
        """Note that the server has begun it, and gives no cursors: what came between is not known."""
        if self.state.is_end:
            return
        is_resumed = self.state is not SubscriptionState.STARTING
        self._last_cursor = None
        if self.continuity is not Continuity.GAP:
            self.continuity = self._unproven
        self.go_live()
        if is_resumed and self.continuity is not Continuity.RESUMED:
            self.owner.uncertain(self)

    def promised(self, cursor: str) -> None:
        """Take the cursor behind the last event, of a server that proves nothing by it."""
        self.received = cursor
        if self.continuity is Continuity.UNKNOWN and not self._was_lost:
            self.continuity = Continuity.RESUMED

    def resume_by(self, seam: VariableSeam[T] | ExtensionSeam) -> None:
        """Resume by the server's own cursors where it gives none of ours; before the first event."""
        self.seam = seam
        if isinstance(seam, VariableSeam):
            self.consumer.predicates = (seam, *self.consumer.predicates)
        else:
            self._read_cursors()
        if self.continuity is Continuity.UNKNOWN:
            self.continuity = Continuity.RESUMED

    @property
    def _unproven(self) -> Continuity:
        """The continuity where the server gives no cursors of ours."""
        has_cursor = self.received is not None or (self.seam is not None and self.seam.last is not None)
        is_first = self.events_received == 0 and self.seam is not None
        return Continuity.RESUMED if has_cursor or is_first else Continuity.UNKNOWN

    def resumes_after(self, cursor: str) -> None:
        """Take the place that is asked behind next."""
        self.received = self._last_cursor = cursor

    def failed(self, errors: tuple[GraphQLError, ...]) -> None:
        """Take the server's ``error``: the end, unless it is a gap to bridge or a rate limit to obey."""
        if self.state.is_end:
            return
        error = server_error(self.id, errors)
        if self._refuses_cursor(errors):
            error = GapError(self.id, "cursor")
        if isinstance(error, GapError):
            self._miss(error)
        elif isinstance(error, RateLimitExceeded):
            self.owner.lost(self, error, after_seconds=error.retry_after or 1.0)
        else:
            self._finish(Trigger.FAIL, error)

    def _refuses_cursor(self, errors: tuple[GraphQLError, ...]) -> bool:
        """Tell whether errors refuse a cursor of the server's own, after which nothing has come."""
        if self.seam is not None:
            return self.seam.is_refused(errors)
        # That of a server-sent event.
        is_sent = self.continuity is Continuity.RESUMED and self.received is not None
        return is_sent and self.events_received == self._events_before and any(map(names_cursor, errors))

    def completed(self) -> None:
        """Take the server's ``complete``."""
        if self.state.is_end:
            return
        errors = self._operation_errors
        if errors is not None and errors.failure and errors.failed_at == self.events_received:
            # Some servers have no `error` message for a stream that fails: its last result has errors and no
            # data, and `complete` follows.
            self._finish(Trigger.FAIL, server_error(self.id, errors.failure))
        else:
            self._finish(Trigger.COMPLETE, None)

    def connection_lost(self, error: StreamFailure) -> None:
        """Report the loss of the connection to the owner, which decides what follows."""
        if not self.state.is_end:
            self.owner.lost(self, error)

    # The owner ---------------------------------------------------------------------------------------------

    def go_live(self) -> None:
        """Note that from here on nothing is missed; once more does nothing."""
        if self.state.is_end:
            return
        self._is_confirmed = True
        if self.state is _LIVE:
            return
        self._move(Trigger.GO_LIVE)
        self.signal_at = time.perf_counter()
        self._begin()
        self._settle()
        # Since it was begun, or since it was lost.
        self._log(logging.INFO, "subscription live", seconds=round(time.perf_counter() - self._off_at, 6))
        self.consumer.handlers.report_state(self.state)

    def give_up(self, error: StreamFailure) -> None:
        """End: there will be no other connection."""
        if not self.state.is_end:
            self._finish(Trigger.FAIL, error)

    def await_link(self, error: StreamFailure) -> None:
        """Leave the link because of an error, and wait to be resumed on another one."""
        if self.state.is_end:
            return
        self._go_off(Trigger.LOSE)
        self._log(logging.INFO, "subscription reconnecting")
        self.consumer.handlers.report_error(error)

    def await_bridge(self, error: GapError) -> None:
        """Leave the link because events are missing, and wait to be resumed behind the gap."""
        if self.state.is_end:
            return
        self._go_off(Trigger.LOSE)
        self.last_error = error
        self._log(logging.WARNING, "subscription has a gap", reason=error.reason)

    def resume(self, id: SubscriptionId, link: Link) -> None:  # noqa: A002 (as in the protocol)
        """Go on by another link, under a fresh id, behind the last event received where that is known.

        Without a cursor, or without a server that takes it, events may be missing: ``continuity`` is unknown.

        One that has ended stays on none.

        :raises TransportError, SubscriptionError: the link is closing or closed; it is on none then.
        """
        if self.state.is_end:
            return
        if not self._is_off:
            # Handed over: whatever the other link still has under way comes by this one.
            self._note_proof()
            self._link.release(self)
            self._link.complete(self.id, self)
        self.id = id
        self._link = link
        self._is_off = True
        self._events_before = self.events_received
        self._put_on_at = time.perf_counter()
        self._is_confirmed = False
        if self._has_cursors is not link.resume_negotiated:
            self._has_cursors = link.resume_negotiated
            self._read_cursors()
        # `prev` of the first event will be the cursor that we name (docs/resume.md, 4).
        after = self._last_cursor = self.received if self._has_cursors else None
        if self.state is SubscriptionState.STARTING and self.continuity is not Continuity.GAP:
            self.continuity = Continuity.OK if self._has_cursors else self._unproven
        elif after is None and self.continuity is not Continuity.GAP:
            self.continuity = self._unproven
            self._was_lost = self.continuity is Continuity.UNKNOWN
        # Until the server has said where that is, it begins where it was to begin.
        resume = {"after": after} if after is not None else self.begin
        extensions: dict[str, object] | None = None if resume is None else {"resume": resume}
        self.request = msgspec.structs.replace(self.request, id=id, extensions=extensions)
        if after is None and self.seam is not None:
            self.request = self.seam.resumed(self.request)
        link.subscribe(self.request, self)
        self._is_off = False
        if self._is_stopped:
            link.hold(self)

    @property
    def events_received(self) -> int:
        """The number of events that have come, those that filters keep back among them."""
        return self._events + self._handled_in_run

    @property
    def is_stopped(self) -> bool:
        """Whether its buffer is full, and it waits for its consumer."""
        return self._is_stopped

    @property
    def link(self) -> Link | None:
        """The link that carries the subscription now; ``None`` without one."""
        return None if self._is_off else self._link

    @property
    def received_at(self) -> float | None:
        """When its link has brought something last, for whomever."""
        return None if self._is_off else self._link.received_at

    @property
    def away_seconds(self) -> float:
        """For how long it has not been live; of one that is live, nothing sensible."""
        return time.perf_counter() - self._off_at

    @property
    def paused_seconds(self) -> float:
        """For how long it is stopped; 0 where it is not."""
        return time.perf_counter() - self._paused_at if self._is_stopped else 0.0

    @property
    def is_proven_on_link(self) -> bool:
        """Whether the server has accepted it on the present link: by an event, the live signal, or time."""
        return (
            self.events_received > self._events_before
            or (self._has_cursors and self._is_confirmed)
            or time.perf_counter() - self._put_on_at >= PROOF_SECONDS
        )

    def settling(self) -> asyncio.Future[None]:
        """Return a future that is done when it goes live, ends, or is on no link any more."""
        self._settled = self.consumer.loop.create_future()
        return self._settled

    @property
    def has_proven_link(self) -> bool:
        """Whether the present link has carried it well: for a while, or with two events."""
        return (
            self.events_on_connection >= PROOF_EVENTS
            or time.perf_counter() - self._put_on_at >= PROOF_SECONDS
        )

    @property
    def last_link(self) -> Link:
        """The link that carries it, or did last."""
        return self._link

    @property
    def events_on_connection(self) -> int:
        """The number of events that the present link has brought."""
        return self.events_received - self._events_before

    def is_late_on(self, link: Link, *, after: float) -> bool:
        """Whether it was put on this link so many seconds ago, is there and has not come to life."""
        is_waiting = not self.state.is_end and (self.state is not _LIVE or not self._is_confirmed)
        is_there = self._link is link and not self._is_off
        # A timer may be a little early.
        return is_waiting and is_there and time.perf_counter() - self._put_on_at >= after * 0.99

    def fail(self, error: StreamFailure) -> None:
        """End with an error of our own; the server is told."""
        if self.state.is_end:
            return
        self._link.complete(self.id, self)
        self._finish(Trigger.FAIL, error)

    def unsubscribe(self) -> None:
        """End by the application's wish; the server is told, what is buffered is dropped. Idempotent."""
        self.consumer.buffer.clear()
        if self.state.is_end:
            self._move(Trigger.UNSUBSCRIBE)
            return
        self._link.complete(self.id, self)
        self._finish(Trigger.UNSUBSCRIBE, None)

    def abandon(self) -> None:
        """End, because the last reference is gone; a subscription with a handler goes on."""
        if not self.state.is_end and not self.consumer.handlers.has_data:
            self._log(logging.DEBUG, "subscription abandoned")
            self.unsubscribe()

    @property
    def root_field(self) -> str | None:
        """The root field's response key, if it is known."""
        return self._decoder.root_field

    @property
    def event_type(self) -> object:
        """The type that events are decoded to."""
        return self._decoder.event_type

    def stats(self) -> SubscriptionStats:
        """Take a snapshot of the counters."""
        consumer, errors = self.consumer, self._operation_errors
        received = self.events_received - (0 if errors is None else errors.without_value)
        filtered, dropped, buffered = consumer.filtered, consumer.buffer.dropped, len(consumer.buffer)
        return SubscriptionStats(
            received=received,
            # Not counted by itself: an event that is neither kept back, nor dropped, nor waiting, is handled.
            handled=received - filtered - dropped - buffered - len(consumer.pending or ()),
            filtered=filtered,
            dropped=dropped,
            pauses=self.pauses,
            gaps=self.gaps,
            operation_errors=0 if errors is None else errors.count,
            handler_errors=self.consumer.handlers.errors,
            buffered_events=buffered,
            buffered_bytes=self.consumer.buffer.size_bytes,
            paused_seconds=self.paused_seconds,
        )

    # -------------------------------------------------------------------------------------------------------

    def _keep(self, response: Response[T], size_bytes: int) -> None:
        buffer = self.consumer.buffer
        dropped = buffer.dropped
        if not buffer.put(response, size_bytes):
            self._overflow(response, size_bytes)
            return
        if buffer.dropped != dropped:
            self.continuity = Continuity.GAP
        self._noticed()

    def _noticed(self) -> None:
        """Stop the flow if the buffer is full, and wake the consumer, after an event was buffered."""
        consumer = self.consumer
        buffer = consumer.buffer
        if self._blocks and not self._is_stopped and buffer.is_full:
            self._stop()
            self._paused_at = time.perf_counter()
            self._link.hold(self)
        if consumer.on_ready is not None:
            consumer.on_ready()
        wake_at = consumer.wake_at
        if wake_at is not NEVER and (len(buffer) >= wake_at or buffer.is_half_full()):
            consumer.wake()

    def _overflow(self, response: Response[T], size_bytes: int) -> None:
        """Stop the stream before an event that does not fit; end, where it could not go on from there."""
        resume = response.extensions.resume if self._has_cursors and response.extensions else None
        if self.consumer.buffer.fits_by_itself(size_bytes):
            self.consumer.buffer.refused_by_others()
        would_ever_fit = size_bytes <= self._limits.max_bytes and self.consumer.buffer.fits_client(size_bytes)
        if (
            self._limits.overflow is not OverflowPolicy.RESUME
            or resume is None
            or resume.prev is None
            or not would_ever_fit
        ):
            held = self.consumer.buffer
            held.dropped += 1
            self.fail(BufferOverflowError(self.id, events=len(held), size_bytes=held.size_bytes))
            return
        # The event comes again: it is as if it had not arrived.
        self._events -= 1
        self._paused_at = time.perf_counter()
        self.received = self._last_cursor = resume.prev
        self.pauses += 1
        self._link.complete(self.id, self)
        self._go_off(Trigger.PAUSE)
        self._stop()
        self._log(logging.DEBUG, "subscription paused", buffered=len(self.consumer.buffer))
        self._flow_again()

    def _stop(self) -> None:
        """Note that the stream is stopped: each event that is taken may let it go on."""
        self._is_stopped = True
        self.consumer.on_taken = self._flow_again

    def _start(self) -> None:
        self._is_stopped = False
        self.consumer.on_taken = None

    def _flow_again(self) -> None:
        """Let a stopped stream go on, if the buffers have become low."""
        if not self._is_stopped or self.state.is_end:
            return
        if not self.consumer.buffer.is_low:
            self.consumer.buffer.when_client_is_low(self._flow_again)
            return
        self._start()
        if self._is_off:
            self.owner.resume(self)
        else:
            self._link.release(self)

    def _go_off(self, trigger: Trigger) -> None:
        """Note that it is on no connection."""
        self._note_proof()
        self._link.release(self)
        self._is_off = True
        self._start()
        self._off_at = time.perf_counter()
        before = self.state
        self._move(trigger)
        self._settle()
        if self.state is not before:
            self.consumer.handlers.report_state(self.state)

    def _note_proof(self) -> None:
        self.was_proven = self.was_proven or self.is_proven_on_link

    def _settle(self) -> None:
        if self._settled is not None and not self._settled.done():
            self._settled.set_result(None)
        self._settled = None

    def _miss(self, error: GapError) -> None:
        if self.seam is not None:
            self.seam.forget()
        elif self.continuity is Continuity.RESUMED:
            self.received = None
        self.continuity = Continuity.GAP
        self.gaps += 1
        self.owner.missed(self, error)

    def _follow(self, resume: Resume | None) -> bool:
        """Advance the cursors; ``False`` if the chain is broken: the event is not delivered."""
        if not self._has_cursors:
            return resume is None or self._follow_unproven(resume.cursor)
        if resume is None:
            # From a cursor before this event it would come once more.
            self._last_cursor = self.received = None
            if self.continuity is Continuity.OK:
                self.continuity = self._unproven
            return True
        if self._last_cursor is not None and resume.prev != self._last_cursor:
            self._events -= 1  # it is not delivered
            self._link.complete(self.id, self)
            self._miss(GapError(self.id, "prev"))
            return False
        self._last_cursor = self.received = resume.cursor
        return True

    def _follow_unproven(self, cursor: str) -> bool:
        """Advance to a cursor that proves nothing; ``False`` if the event came before."""
        if self.seam is not None and not self.seam.is_new(cursor):
            self.consumer.filtered += 1
            return False
        self._last_cursor = self.received = cursor
        return True

    def _read_cursors(self) -> None:
        """Decode what a server by itself, or asked for, says of cursors."""
        with_cursor = isinstance(self.seam, ExtensionSeam)
        self._reads_cursors = self._has_cursors or with_cursor
        self._decoder = self._decoder.reading_cursors(self._has_cursors, with_cursor=with_cursor)
        self._decode, self.decode_next = self._decoder.decode, self._decoder.decode_next

    def _report_operation_errors(self, response: Response[T], *, is_whole: bool) -> None:
        try:
            errors = read_errors(response.errors)
        except UnfitPayloadError as error:
            errors = (GraphQLError(message=str(error)),)
        errors = self._link.redacted(errors)
        if self._operation_errors is None:
            self._operation_errors = OperationErrors()
        self._operation_errors.note(errors, received=self.events_received, is_whole=is_whole)
        self.consumer.handlers.report_error(OperationError(errors, operation=self.label))
        if is_whole and self._refuses_cursor(errors):
            self._link.complete(self.id, self)
            self._miss(GapError(self.id, "cursor"))

    def _finish(self, trigger: Trigger, error: StreamFailure | None) -> None:
        self._move(trigger)
        self.error = error
        if error is not None:
            self.last_error = error
        self._begin()
        self._settle()
        self.consumer.end()
        self._log(
            logging.INFO if error is None else logging.WARNING,
            f"subscription {self.state}",
            received=self.events_received,
            error=error,
            seconds=round(time.perf_counter() - self._started, 6),
        )
        if self._is_stopped:
            self._start()
            self._link.release(self)
        self._is_off = True
        self.owner.ended(self)
        if self.consumer.on_ready is not None:
            self.consumer.on_ready()
        self.consumer.wake()
        self.consumer.handlers.report_state(self.state)
        self.consumer.handlers.end()

    def _begin(self) -> None:
        self.has_begun = True
        if self._begun is not None and not self._begun.done():
            self._begun.set_result(None)
        self._begun = None

    def _move(self, trigger: Trigger) -> None:
        self.state = TRANSITIONS[self.state, trigger]
        self._is_live = self.state is _LIVE
        self.consumer.run_goes_to = None

    def _log(self, level: int, what: str, **fields: object) -> None:
        log(level, what, subscription_id=self.id, operation=self.label, **fields)
