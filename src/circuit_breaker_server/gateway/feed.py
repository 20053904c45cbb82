"""One peer's subscriptions: places in channels, and the writing of what is new there.

There is one reading path. A subscriber is either in its channel's ring and flushed from it, or behind the
ring and read from the log until it reaches the ring: after a resume, and after its socket was full. A peer
whose socket is full is not written to and holds nothing but its places.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final, NamedTuple, Protocol, TypeAlias, final

from circuit_breaker_sdk.errors import GraphQLError
from circuit_breaker_server.access.audit_lines import NO_AUDIT
from circuit_breaker_server.access.caller import OPEN, Caller
from circuit_breaker_server.engine.cursor import Cursor
from circuit_breaker_server.gateway.channel import END_OF_RECORD, Channel, Position, with_resume
from circuit_breaker_server.gateway.event_reader import Found, Gap, LogReader, Page
from circuit_breaker_server.gateway.guarded_calls import call_each, guarded
from circuit_breaker_server.gateway.pacing import TokenBucket
from circuit_breaker_server.gateway.subscription_errors import gap_error, internal_error
from circuit_breaker_server.log.event_log import LogError
from circuit_breaker_server.logs import get_logger

__all__ = [
    "EncodingFailed",
    "Feed",
    "Frame",
    "Hub",
    "Memo",
    "Peer",
    "Run",
    "Subscriber",
]

Frame: TypeAlias = Callable[[int, Sequence[bytes]], Sequence[bytes]]
"""From the length of an operation's prefix and its payloads to the pieces that the prefix stands between.

``prefix.join(pieces)`` is what a socket is given: one copy of the bytes, however many events there are.
"""


@final
class EncodingFailed(Exception):
    """An event of a channel cannot be encoded; the cause is what the projection raised."""


@final
class Run:
    """A channel's events from one number on: encoded once in a flush, for all subscribers at that position.

    :ivar prev: the ``prev`` cursor of the first event; a subscriber that received another one before gets
        bytes of its own.
    :ivar prefix: of the operation framed last, ``framed`` what came of it. No more is kept: bytes that are
        let go leave their place in the processor's cache to the next ones.
    """

    __slots__ = ("_payloads", "_pieces", "frame", "framed", "last", "prefix", "prev", "resume", "seq")

    def __init__(self, channel: Channel, seq: int, frame: Frame, *, resume: bool) -> None:
        self.seq = seq
        self.frame = frame
        self.resume = resume
        self.prev = channel.entry(seq).prev
        self.last = channel.last
        self.prefix: bytes | None = None
        self.framed = b""
        self._payloads = channel.payloads(seq, resume=resume, prev=self.prev)
        self._pieces: dict[int, Sequence[bytes]] = {}

    def frames(self, prefix: bytes) -> bytes:
        """Frame for one operation; who numbers its operations alike gets the same bytes."""
        pieces = self._pieces.get(len(prefix))
        if pieces is None:
            pieces = self._pieces[len(prefix)] = self.frame(len(prefix), self._payloads)
        self.prefix, self.framed = None, b""
        frames = self.framed = prefix.join(pieces)
        self.prefix = prefix
        return frames


Memo: TypeAlias = list[Run]
"""The runs of a channel that one flush has already encoded, the run used last in front."""

_MAX_STRIDE: Final = 512
_ENDED_AT_ONCE: Final = 32
_ENDED_PAUSE_SECONDS: Final = 0.001

MAX_WRITE_BYTES: Final = 256 * 1024
"""After this much a peer waits for the next turn, so that one write stays of bounded size."""

logger = get_logger("gateway")


class Peer(Protocol):
    """The interface of the session that a feed writes to. A peer that raises is ended; the others go on."""

    def write(self, frames: bytes) -> None:
        """Write to the socket, at once."""
        ...

    def signal(self, cursors: Sequence[tuple[str, str]]) -> None:
        """Tell for each operation id the cursor up to which nothing is missed (the live signal)."""
        ...

    def caught_up(self, operation_id: str) -> None:
        """Hear that an operation that was behind has nothing more to be sent, for now."""
        ...

    def fail(self, operation_id: str, errors: Sequence[GraphQLError]) -> None:
        """End one operation with errors."""
        ...

    def complete(self, operation_id: str) -> None:
        """End one operation: its stream is over."""
        ...

    def drop(self) -> None:
        """End the peer with all its operations: the server failed while it served this peer."""
        ...


@final
class _Nobody:
    """The peer of a closed feed, which would else hold its session, and that the feed: a circle."""

    def write(self, frames: bytes) -> None: ...

    def signal(self, cursors: Sequence[tuple[str, str]]) -> None: ...

    def caught_up(self, operation_id: str) -> None: ...

    def fail(self, operation_id: str, errors: Sequence[GraphQLError]) -> None: ...

    def complete(self, operation_id: str) -> None: ...

    def drop(self) -> None: ...


_NOBODY: Final = _Nobody()


class Hub(Protocol):
    """The interface of the gateway that a feed uses."""

    @property
    def reader(self) -> LogReader: ...

    @property
    def end(self) -> Position:
        """The place up to which everything was offered to the channels."""
        ...

    def schedule(self, feed: Feed) -> None:
        """Flush this feed in the next turn of the loop."""
        ...

    def leave(self, subscriber: Subscriber) -> None:
        """Take a subscriber out of its channel; the last one takes the channel with it."""
        ...

    def own(self, task: asyncio.Task[None]) -> None:
        """Keep a task and await it when the gateway closes."""
        ...

    def end_peer(self, feed: Feed, error: Exception) -> None:
        """End a peer that has raised."""
        ...


@final
class Subscriber:
    """One operation's place in its channel.

    :ivar live: in the ring, at the number ``seq``; otherwise behind it, at ``position``.
    :ivar position: the place of the last event sent, or a later one before which nothing matched.
    :ivar cursor: of the last event sent; at first where the subscription began. The next event's ``prev``.
    :ivar unverified: the cursor to resume after, until it was looked up in the log.
    :ivar deadline: by when its stream has to begin.
    :ivar bucket: where events are paced: how many of them it may still get.
    :ivar resting: wakes it when it may get events again.
    :ivar stride: where events are paced: how many records are read for each event that may be sent.
    :ivar denied: how many events it might not see, but for those of its channel since ``denied_before``.
    """

    __slots__ = (
        "bucket",
        "channel",
        "cursor",
        "deadline",
        "denied",
        "denied_before",
        "ended",
        "feed",
        "id",
        "live",
        "position",
        "prefix",
        "resting",
        "seq",
        "stride",
        "unverified",
    )

    def __init__(
        self,
        feed: Feed,
        id: str,  # noqa: A002 (the protocol's own word)
        prefix: bytes,
        channel: Channel,
        *,
        position: Position,
        cursor: str,
        live: bool,
        unverified: Cursor | None,
        bucket: TokenBucket | None = None,
    ) -> None:
        self.feed = feed
        self.id = id
        self.prefix = prefix
        self.channel = channel
        self.position = position
        self.cursor = cursor
        self.unverified = unverified
        self.live = live
        self.deadline: asyncio.TimerHandle | None = None
        self.seq = channel.end_seq
        self.ended = False
        self.denied = 0
        self.denied_before = channel.denied
        self.bucket = bucket
        self.stride = 1
        self.resting: asyncio.TimerHandle | None = None

    def count_denied(self) -> None:
        """Take over what its channel has counted while it was live."""
        if self.live:
            self.denied += self.channel.denied - self.denied_before
            self.denied_before = self.channel.denied

    @property
    def is_current(self) -> bool:
        """Everything there is was sent."""
        return self.live and self.seq == self.channel.end_seq


def _end_of_part(events: Sequence[Found], count: int, before: Position) -> Position:
    """Return the place after the first events of a page: after their record, if no more of it follows."""
    if not count:
        return before
    (offset, index), (following, _) = events[count - 1][0], events[count][0]
    return (offset, index if following == offset else END_OF_RECORD)


class Kept(NamedTuple):
    """The rest of a page that was read from the log and that a full socket did not take."""

    subscriber: Subscriber
    channel: Channel
    page: Page


@final
class Feed:
    """The subscriptions of one peer.

    :ivar caller: the peer's principal and their rights.
    :ivar has_one: whether it is one subscription only: a write holds nothing of others.
    :ivar finished: the subscriptions that end with what was collected.

    Example::

        feed = gateway.attach(session, frame=text_frames, resume=True)
        feed.close()
    """

    __slots__ = (
        "_chunk",
        "_chunk_bytes",
        "_hub",
        "_is_reading",
        "_kept",
        "_lagging",
        "_more_chunks",
        "_reading",
        "_subscribers",
        "caller",
        "closed",
        "finished",
        "frame",
        "has_one",
        "peer",
        "resume",
        "writable",
    )

    def __init__(self, hub: Hub, peer: Peer, *, frame: Frame, resume: bool, caller: Caller = OPEN) -> None:
        """Feed ``peer``; ``resume`` tells whether it negotiated cursors."""
        self.peer: Peer = peer
        self.caller = caller
        self.frame = frame
        self.resume = resume
        self.writable = True
        self.closed = False
        self.has_one = False
        self._hub = hub
        self._subscribers: dict[str, Subscriber] = {}
        self._lagging: dict[Subscriber, None] = {}
        # Mostly one: no list is made for it.
        self._chunk: bytes | None = None
        self._more_chunks: list[bytes] = []
        self._chunk_bytes = 0
        self.finished: list[Subscriber] = []
        self._is_reading = False
        # One at most, whatever the number of subscriptions: it is sent before another page is read.
        self._kept: Kept | None = None
        self._reading: asyncio.Task[None] | None = None

    @property
    def subscribers(self) -> Mapping[str, Subscriber]:
        return self._subscribers

    # --- what the session does ---------------------------------------------------------------------

    def add(self, subscriber: Subscriber) -> None:
        """Take a subscriber that the gateway has put in its channel; signal it if its place is known."""
        self._subscribers[subscriber.id] = subscriber
        self.has_one = len(self._subscribers) == 1
        if subscriber.unverified is None and self.resume:
            self.peer.signal([(subscriber.id, subscriber.cursor)])
        if not subscriber.live:
            self._lag(subscriber)

    def unsubscribe(self, operation_id: str) -> None:
        """Forget one operation; unknown ids are ignored."""
        subscriber = self._subscribers.pop(operation_id, None)
        self.has_one = len(self._subscribers) == 1
        if subscriber is not None:
            self._end(subscriber)

    def move(self, subscriber: Subscriber, channel: Channel) -> None:
        """Go on in another channel of the same plan, from where the subscriber stands."""
        subscriber.count_denied()
        subscriber.channel = channel
        subscriber.live = False
        if subscriber.resting is None:
            self._lag(subscriber)

    def set_writable(self, writable: bool) -> None:
        """Hear that the socket's buffer is full, or has room again."""
        self.writable = writable
        if writable and not self.closed:
            self._hub.schedule(self)

    def close(self) -> None:
        """Forget every operation: nothing more is sent. Idempotent.

        Very many leave their channels a few at a time, so that others have their turn.
        """
        self.closed = True
        subscribers = list(self._subscribers.values())
        self._subscribers.clear()
        for subscriber in subscribers:
            subscriber.count_denied()
            subscriber.live, subscriber.ended = False, True
        call_each(subscribers[:_ENDED_AT_ONCE], self._end, self._on_end_error)
        if len(subscribers) > _ENDED_AT_ONCE:
            rest = self._end_slowly(subscribers[_ENDED_AT_ONCE:])
            self._hub.own(asyncio.get_running_loop().create_task(rest))
        self.peer = _NOBODY
        self._kept = None
        if self._reading is not None:
            self._reading.cancel()

    async def _end_slowly(self, subscribers: list[Subscriber]) -> None:
        for number, subscriber in enumerate(subscribers):
            if number % _ENDED_AT_ONCE == 0:
                await asyncio.sleep(_ENDED_PAUSE_SECONDS)
            guarded(subscriber, self._end, self._on_end_error, otherwise=None)

    def fail(self, subscriber: Subscriber, errors: Sequence[GraphQLError]) -> None:
        """End one operation with errors; others go on."""
        if not subscriber.ended:
            self.unsubscribe(subscriber.id)
            self.peer.fail(subscriber.id, errors)

    def _complete(self, subscriber: Subscriber) -> None:
        """End one operation whose stream is over and was sent whole."""
        if not subscriber.ended:
            self.unsubscribe(subscriber.id)
            self.peer.complete(subscriber.id)

    def _end(self, subscriber: Subscriber) -> None:
        subscriber.ended = True
        for timer in (subscriber.deadline, subscriber.resting):
            if timer is not None:
                timer.cancel()
        self._lagging.pop(subscriber, None)
        if self._kept is not None and self._kept.subscriber is subscriber:
            self._kept = None
        subscriber.count_denied()
        subscriber.live = False
        self._hub.leave(subscriber)
        caller, plan = self.caller, subscriber.channel.plan
        if caller.audit is not NO_AUDIT:
            caller.audit.note(
                caller,
                "end",
                caller.audit.named(plan.field, plan.arguments),
                "ended",
                last_cursor=subscriber.cursor,
                count=subscriber.denied,
            )

    def _on_end_error(self, subscriber: Subscriber, error: Exception) -> None:
        logger.error("end_failed", operation=subscriber.id, field=subscriber.channel.stream, exc_info=error)

    # --- from the ring -----------------------------------------------------------------------------

    def collect(self, subscriber: Subscriber, memo: Memo) -> bool:
        """Frame what is new for a live subscriber; return whether this peer has something to write.

        :raises EncodingFailed: no subscriber of the channel can get the next event.
        """
        channel = subscriber.channel
        seq = subscriber.seq
        if seq == channel.end_seq:
            return self._chunk is not None
        if seq < channel.first_seq:
            self._lag(subscriber)
            return self._chunk is not None
        if self._chunk_bytes > MAX_WRITE_BYTES:
            self._hub.schedule(self)
            return True
        if subscriber.bucket is not None and not self._may_send_all(subscriber, subscriber.bucket):
            return self._chunk is not None
        # Nearly all who follow a channel stand at the same place, and are of one kind.
        run = memo[0] if memo else None
        if run is None or run.seq != seq or run.resume is not self.resume or run.frame is not self.frame:
            run = self._find_run(channel, seq, memo)
        prefix = subscriber.prefix
        if run.prev == subscriber.cursor or not self.resume:
            frames = run.framed if run.prefix == prefix else run.frames(prefix)
        else:
            payloads = channel.payloads(seq, resume=True, prev=subscriber.cursor)
            frames = prefix.join(self.frame(len(prefix), payloads))
        if self._chunk is None:
            self._chunk = frames
        else:
            self._more_chunks.append(frames)
        self._chunk_bytes += len(frames)
        last = run.last
        subscriber.seq = channel.end_seq
        subscriber.position = last.position
        subscriber.cursor = last.cursor
        if last.is_last:
            self.finished.append(subscriber)
        return True

    def _may_send_all(self, subscriber: Subscriber, bucket: TokenBucket) -> bool:
        """Take tokens for all that is new; where they do not suffice, collect a part and rest."""
        channel, seq = subscriber.channel, subscriber.seq
        wanted = channel.end_seq - seq
        count = bucket.take(wanted)
        if count == wanted:
            return True
        if count:
            try:
                payloads = channel.payloads(seq, resume=self.resume, prev=subscriber.cursor)[:count]
            except Exception as error:
                raise EncodingFailed from error
            prefix = subscriber.prefix
            frames = prefix.join(self.frame(len(prefix), payloads))
            if self._chunk is None:
                self._chunk = frames
            else:
                self._more_chunks.append(frames)
            self._chunk_bytes += len(frames)
            last = channel.entry(seq + count - 1)
            subscriber.seq = seq + count
            subscriber.position, subscriber.cursor = last.position, last.cursor
        self._rest(subscriber, bucket)
        return False

    def _find_run(self, channel: Channel, seq: int, memo: Memo) -> Run:
        for place, run in enumerate(memo):
            if run.seq == seq and run.resume is self.resume and run.frame is self.frame:
                memo[place], memo[0] = memo[0], run
                return run
        try:
            run = Run(channel, seq, self.frame, resume=self.resume)
        except Exception as error:
            raise EncodingFailed from error
        memo.insert(0, run)
        return run

    def write(self) -> None:
        """Write what was collected, in one write."""
        chunk = self._chunk
        if chunk is not None and not self.closed:
            self._chunk = None
            self._chunk_bytes = 0
            if self._more_chunks:
                chunk = b"".join((chunk, *self._more_chunks))
                self._more_chunks = []
            self.peer.write(chunk)
        if self.finished:
            finished, self.finished = self.finished, []
            for subscriber in finished:
                self._complete(subscriber)

    def unsent(self) -> Iterable[Subscriber]:
        """Return the live subscribers that are not current."""
        return [s for s in self._subscribers.values() if s.live and not s.is_current]

    # --- from the log ------------------------------------------------------------------------------

    def _lag(self, subscriber: Subscriber) -> None:
        subscriber.count_denied()
        subscriber.live = False
        self._lagging[subscriber] = None
        self.read_on()

    def read_on(self) -> None:
        """Read for those behind the ring, if there are any and the socket has room."""
        if self._lagging and self.writable and not self._is_reading and not self.closed:
            self._is_reading = True
            self._reading = asyncio.get_running_loop().create_task(self._catch_up())
            self._hub.own(self._reading)

    def _rest(self, subscriber: Subscriber, bucket: TokenBucket) -> None:
        """Send a subscription nothing until it may get events again."""
        subscriber.count_denied()
        subscriber.live = False
        self._lagging.pop(subscriber, None)
        subscriber.resting = bucket.wake_later(functools.partial(self._wake, subscriber))
        self.peer.caught_up(subscriber.id)

    def _wake(self, subscriber: Subscriber) -> None:
        subscriber.resting = None
        self._lag(subscriber)

    async def _catch_up(self) -> None:
        try:
            while self._lagging and self.writable and not self.closed:
                kept = self._kept
                subscriber = next(iter(self._lagging)) if kept is None else kept.subscriber
                # To the end of the queue: many of them advance side by side.
                del self._lagging[subscriber]
                self._lagging[subscriber] = None
                await self._read_some(subscriber)
        except Exception as error:  # noqa: BLE001 (of the peer that was told; the reading's own are handled)
            self._hub.end_peer(self, error)
        finally:
            self._is_reading = False

    async def _read_some(self, subscriber: Subscriber) -> None:
        bucket = subscriber.bucket
        try:
            if subscriber.unverified is not None:
                await self._hub.reader.verify(subscriber.unverified, subscriber.channel.selection.subjects)
                if subscriber.ended:
                    return
                subscriber.unverified = None
                if self.resume:
                    self.peer.signal([(subscriber.id, subscriber.cursor)])
            kept, self._kept = self._kept, None
            if kept is not None and kept.channel is subscriber.channel:
                self._send(subscriber, kept.page)
                return
            if self._rejoin(subscriber):
                return
            if bucket is not None and bucket.is_empty:
                self._rest(subscriber, bucket)
                return
            channel = subscriber.channel
            page = await self._hub.reader.read(
                channel,
                after=subscriber.position,
                end=self._hub.end,
                # Of what cannot be sent yet nothing is read.
                max_records=None if bucket is None else bucket.count * subscriber.stride,
            )
            # Rights may have changed meanwhile: then it is read again.
            if not subscriber.ended and subscriber.channel is channel:
                subscriber.denied += page.denied
                # Where little matches, more is read at once than may be sent.
                subscriber.stride = 1 if page.events else min(subscriber.stride * 8, _MAX_STRIDE)
                if self.writable:
                    self._send(subscriber, page)
                else:  # another operation has filled the socket meanwhile
                    self._kept = Kept(subscriber, channel, page)
        except Gap as gap:
            self.fail(subscriber, [gap_error(gap.reason)])
        except LogError:
            logger.exception("log_unreadable", operation=subscriber.id)
            unavailable = GraphQLError(
                message="the event log cannot be read", extensions={"code": "UNAVAILABLE"}
            )
            self.fail(subscriber, [unavailable])
        except Exception:
            logger.exception("catch_up_failed", operation=subscriber.id, field=subscriber.channel.stream)
            self.fail(subscriber, [internal_error()])

    def _send(self, subscriber: Subscriber, page: Page) -> None:
        """Write a page; stop inside it when the socket is full, or when there are no more tokens."""
        bucket = subscriber.bucket
        count = len(page.events) if bucket is None else bucket.take(len(page.events))
        if count < len(page.events):
            events, reached = page.events[:count], _end_of_part(page.events, count, subscriber.position)
        else:
            events, reached = page.events, page.position
        encode, resume = subscriber.channel.projection.encode, self.resume
        payloads: list[bytes] = []
        size = 0
        prev = subscriber.cursor.encode()
        left = len(events)
        for position, cursor, value in events:
            left -= 1
            head = encode(value)
            if resume:
                place = cursor.encode()
                payload = with_resume(head, place, prev)
                prev = place
            else:
                payload = head + b"}"
            payloads.append(payload)
            size += len(payload)
            if size > MAX_WRITE_BYTES or not left:
                subscriber.position, subscriber.cursor = position, cursor
                prefix = subscriber.prefix
                self.peer.write(prefix.join(self.frame(len(prefix), payloads)))
                payloads, size = [], 0
                if subscriber.channel.ends_with(value):
                    self._complete(subscriber)
                if subscriber.ended:
                    return
                if not self.writable and left:
                    if bucket is not None:
                        bucket.give_back(left)
                    rest = page.events[len(events) - left :]
                    self._kept = Kept(subscriber, subscriber.channel, Page(rest, page.position))
                    return
        subscriber.position = reached
        if bucket is not None and count < len(page.events):
            self._rest(subscriber, bucket)
        else:
            self._rejoin(subscriber)

    def _rejoin(self, subscriber: Subscriber) -> bool:
        seq = subscriber.channel.seq_after(subscriber.position)
        if seq is None:
            return False
        self._lagging.pop(subscriber, None)
        subscriber.seq = seq
        subscriber.live = True
        subscriber.denied_before = subscriber.channel.denied
        finite = subscriber.channel.selection.finite
        if not subscriber.is_current:
            self._hub.schedule(self)
        elif finite is not None and finite.is_over():
            # It resumed after the last event.
            self._complete(subscriber)
        else:
            self.peer.caught_up(subscriber.id)
        return True
