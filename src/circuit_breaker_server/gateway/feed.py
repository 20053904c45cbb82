"""The feed of one peer: add and end its subscriptions, write what is new in their channels.

There is one reading path. A subscriber is either in its channel's ring and flushed from it, or behind the
ring and read from the log until it reaches the ring: after a resume, and after its socket was full. A peer
whose socket is full is not written to and holds nothing but its places.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from circuit_breaker_sdk.errors import GraphQLError
from circuit_breaker_server.access.caller import OPEN, Caller
from circuit_breaker_server.gateway.catch_up import Kept, read_some
from circuit_breaker_server.gateway.channel import Channel
from circuit_breaker_server.gateway.encoded_run import EncodingFailed, Memo, Run
from circuit_breaker_server.gateway.event_reader import MIN_PAGE_BYTES
from circuit_breaker_server.gateway.guarded_calls import call_each, guarded
from circuit_breaker_server.gateway.hub import Hub
from circuit_breaker_server.gateway.pacing import TokenBucket
from circuit_breaker_server.gateway.peer import MAX_WRITE_BYTES, NO_PEER, Frame, Peer
from circuit_breaker_server.gateway.record_traces import RecordTraces
from circuit_breaker_server.gateway.subscriber import Subscriber
from circuit_breaker_server.gateway.subscription_log import note_end
from circuit_breaker_server.logs import get_logger

__all__ = ["Feed"]

_ENDED_AT_ONCE: Final = 32
_ENDED_PAUSE_SECONDS: Final = 0.001

logger = get_logger("gateway")


class Feed:
    """The subscriptions of one peer.

    :ivar caller: the peer's principal and their rights.
    :ivar framed_bytes: of all events that were collected from rings.
    :ivar has_one: whether it is one subscription only: a write holds nothing of others.
    :ivar finished: the subscriptions that end with what was collected.
    :ivar hub: the gateway.
    :ivar kept: the rest of a page that a full socket did not take.
    :ivar page_bytes: how much of the log is read for it at once: more, the more it has taken.

    Example::

        feed = gateway.attach(session, frame=text_frames, resume=True)
        feed.close()
    """

    traces: RecordTraces | None = None
    """The traces that are added to payloads; ``None``: the peer has not asked for them."""

    __slots__ = (
        "_chunk",
        "_counts",
        "_full_at",
        "_is_reading",
        "_lagging",
        "_may_be_full",
        "_more_chunks",
        "_reading",
        "_subscribers",
        "caller",
        "closed",
        "delivered",
        "finished",
        "frame",
        "framed_bytes",
        "has_one",
        "hub",
        "is_lasting",
        "kept",
        "page_bytes",
        "peer",
        "resume",
        "writable",
    )

    def __init__(
        self,
        hub: Hub,
        peer: Peer,
        *,
        frame: Frame,
        resume: bool,
        caller: Caller = OPEN,
        is_lasting: bool = True,
    ) -> None:
        """Feed ``peer``; ``resume`` tells whether it negotiated cursors."""
        self.peer: Peer = peer
        self.caller = caller
        self.frame = frame
        self.resume = resume
        # A poll's is not: each poll begins its subscriptions anew.
        self.is_lasting = is_lasting
        self.writable = True
        self.closed = False
        self.has_one = False
        self.hub = hub
        self._counts = hub.instruments
        self._subscribers: dict[str, Subscriber[Feed]] = {}
        self._lagging: dict[Subscriber[Feed], None] = {}
        # Mostly one: no list is made for it.
        self._chunk: bytes | None = None
        self._more_chunks: list[bytes] = []
        # Of all that was ever collected: nothing is counted, nor set back, with each write.
        self.framed_bytes = 0
        # Of the subscriptions that have ended.
        self.delivered = 0
        self._may_be_full, self._full_at = MAX_WRITE_BYTES, -1
        self.finished: list[Subscriber[Feed]] = []
        self._is_reading = False
        # One at most, whatever the number of subscriptions: it is sent before another page is read.
        self.kept: Kept | None = None
        self.page_bytes = MIN_PAGE_BYTES
        self._reading: asyncio.Task[None] | None = None

    @property
    def subscribers(self) -> Mapping[str, Subscriber[Feed]]:
        return self._subscribers

    # --- what the session does ---------------------------------------------------------------------

    def add(self, subscriber: Subscriber[Feed]) -> None:
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
            self.delivered += subscriber.delivered

    def move(self, subscriber: Subscriber[Feed], channel: Channel) -> None:
        """Go on in another channel of the same plan, from where the subscriber stands."""
        self._leave_ring(subscriber)
        subscriber.channel = channel
        if subscriber.resting is None:
            self._lag(subscriber)

    def set_writable(self, writable: bool) -> None:
        """Hear that the socket's buffer is full, or has room again."""
        self.writable = writable
        if writable and not self.closed:
            self.hub.schedule(self)

    def close(self) -> None:
        """Forget every operation: nothing more is sent. Idempotent.

        Very many leave their channels a few at a time, so that others have their turn.
        """
        self.closed = True
        subscribers = list(self._subscribers.values())
        self._subscribers.clear()
        for subscriber in subscribers:
            self._leave_ring(subscriber)
            self.delivered += subscriber.delivered
            subscriber.ended = True
        call_each(subscribers[:_ENDED_AT_ONCE], self._end, self._on_end_error)
        if len(subscribers) > _ENDED_AT_ONCE:
            rest = self._end_slowly(subscribers[_ENDED_AT_ONCE:])
            self.hub.own(asyncio.get_running_loop().create_task(rest))
        self._counts.event_bytes += self.framed_bytes
        self.framed_bytes = 0
        self._may_be_full = MAX_WRITE_BYTES
        self.peer = NO_PEER
        self.kept = None
        if self._reading is not None:
            self._reading.cancel()

    async def _end_slowly(self, subscribers: list[Subscriber[Feed]]) -> None:
        for number, subscriber in enumerate(subscribers):
            if number % _ENDED_AT_ONCE == 0:
                await asyncio.sleep(_ENDED_PAUSE_SECONDS)
            guarded(subscriber, self._end, self._on_end_error, otherwise=None)

    def fail(self, subscriber: Subscriber[Feed], errors: Sequence[GraphQLError]) -> None:
        """End one operation with errors; others go on."""
        if not subscriber.ended:
            self.unsubscribe(subscriber.id)
            self.peer.fail(subscriber.id, errors)

    def complete(self, subscriber: Subscriber[Feed]) -> None:
        """End one operation whose stream is over and was sent whole."""
        if not subscriber.ended:
            self.unsubscribe(subscriber.id)
            self.peer.complete(subscriber.id)

    def _end(self, subscriber: Subscriber[Feed]) -> None:
        subscriber.ended = True
        for timer in (subscriber.deadline, subscriber.resting):
            if timer is not None:
                timer.cancel()
        self._lagging.pop(subscriber, None)
        if self.kept is not None and self.kept.subscriber is subscriber:
            self.kept = None
        self._leave_ring(subscriber)
        self.hub.leave(subscriber)
        note_end(self, subscriber)

    def _on_end_error(self, subscriber: Subscriber[Feed], error: Exception) -> None:
        logger.error("end_failed", operation=subscriber.id, field=subscriber.channel.stream, exc_info=error)

    # --- from the ring -----------------------------------------------------------------------------

    def collect(self, subscriber: Subscriber[Feed], memo: Memo) -> bool:
        """Frame what is new for a live subscriber; return whether this peer has something to write.

        :raises EncodingFailed: no subscriber of the channel can get the next event.
        """
        channel = subscriber.channel
        seq = subscriber.seq
        if seq == channel.end_seq:
            return self._chunk is not None
        if seq < channel.first_seq:
            self._counts.ring_misses += 1
            self._lag(subscriber)
            return self._chunk is not None
        if self.framed_bytes > self._may_be_full and self._is_full():
            self.hub.schedule(self)
            return True
        if subscriber.bucket is not None and not self._may_send_all(subscriber, subscriber.bucket):
            return self._chunk is not None
        # Nearly all subscribers of a channel stand at the same place, and are of one kind.
        run = memo[0] if memo else None
        if run is None or run.seq != seq or run.resume is not self.resume or run.frame is not self.frame:
            run = self._find_run(channel, seq, memo)
        prefix = subscriber.prefix
        if run.prev == subscriber.cursor or not self.resume:
            frames = run.framed if run.prefix == prefix else run.frames(prefix)
        else:
            payloads = self.payloads(channel, seq, prev=subscriber.cursor)
            frames = prefix.join(self.frame(len(prefix), payloads))
        if self._chunk is None:
            self._chunk = frames
        else:
            self._more_chunks.append(frames)
        self.framed_bytes += len(frames)
        last = run.last
        subscriber.seq = channel.end_seq
        subscriber.position = last.position
        subscriber.cursor = last.cursor
        if last.is_last:
            self.finished.append(subscriber)
        return True

    def _may_send_all(self, subscriber: Subscriber[Feed], bucket: TokenBucket) -> bool:
        """Take tokens for all that is new; where they do not suffice, collect a part and rest."""
        channel, seq = subscriber.channel, subscriber.seq
        wanted = channel.end_seq - seq
        count = bucket.take(wanted)
        if count == wanted:
            return True
        if count:
            try:
                payloads = self.payloads(channel, seq, prev=subscriber.cursor)[:count]
            except Exception as error:
                raise EncodingFailed from error
            prefix = subscriber.prefix
            frames = prefix.join(self.frame(len(prefix), payloads))
            if self._chunk is None:
                self._chunk = frames
            else:
                self._more_chunks.append(frames)
            self.framed_bytes += len(frames)
            last = channel.entry(seq + count - 1)
            subscriber.seq = seq + count
            subscriber.position, subscriber.cursor = last.position, last.cursor
        self.rest(subscriber, bucket)
        return False

    def payloads(self, channel: Channel, seq: int, *, prev: str) -> Sequence[bytes]:
        """Return the payloads from ``seq`` on, for a peer whose last event had the cursor ``prev``."""
        return channel.payloads(seq, resume=self.resume, prev=prev)

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

    def _is_full(self) -> bool:
        """Tell whether enough is collected for one write; else note from when on to look again."""
        if self._chunk is not None and self._full_at == self.framed_bytes:
            return True
        collected = len(self._chunk or b"") + sum(map(len, self._more_chunks))
        if collected > MAX_WRITE_BYTES:
            self._full_at = self.framed_bytes
            return True
        self._may_be_full = self.framed_bytes - collected + MAX_WRITE_BYTES
        return False

    def _leave_ring(self, subscriber: Subscriber[Feed]) -> None:
        """Note that a subscriber is no longer in its ring, and what it has got and was denied there."""
        if subscriber.live:
            delivered = subscriber.seq - subscriber.joined_seq
            self._counts.events_delivered += delivered
            subscriber.delivered += delivered
            subscriber.count_denied()
            subscriber.live = False

    @property
    def uncounted_events(self) -> int:
        """The number of events that its subscribers have got from the rings in which they are."""
        return sum(each.seq - each.joined_seq for each in self._subscribers.values() if each.live)

    @property
    def delivered_events(self) -> int:
        """The number of events that its subscribers have got."""
        present = sum(each.delivered for each in self._subscribers.values())
        return self.delivered + present + self.uncounted_events

    def write(self) -> None:
        """Write what was collected, in one write."""
        chunk = self._chunk
        if chunk is not None and not self.closed:
            self._chunk = None
            if self._more_chunks:
                chunk = b"".join((chunk, *self._more_chunks))
                self._more_chunks = []
            self.peer.write(chunk)
        if self.finished:
            finished, self.finished = self.finished, []
            for subscriber in finished:
                self.complete(subscriber)

    def unsent(self) -> Iterable[Subscriber[Feed]]:
        """Return the live subscribers that are not current."""
        return [s for s in self._subscribers.values() if s.live and not s.is_current]

    # --- from the log ------------------------------------------------------------------------------

    def _lag(self, subscriber: Subscriber[Feed]) -> None:
        self._leave_ring(subscriber)
        self._lagging[subscriber] = None
        self.read_on()

    def read_on(self) -> None:
        """Read for those behind the ring, if there are any and the socket has room."""
        if self._lagging and self.writable and not self._is_reading and not self.closed:
            self._is_reading = True
            self._reading = asyncio.get_running_loop().create_task(self._catch_up())
            self.hub.own(self._reading)

    def stop_lagging(self, subscriber: Subscriber[Feed]) -> None:
        """Read for a subscriber no more: it has rejoined the ring, rests or has ended."""
        self._lagging.pop(subscriber, None)

    def rest(self, subscriber: Subscriber[Feed], bucket: TokenBucket) -> None:
        """Send a subscription nothing until it may get events again."""
        self._leave_ring(subscriber)
        self._lagging.pop(subscriber, None)
        subscriber.resting = bucket.wake_later(functools.partial(self._wake, subscriber))
        self.peer.caught_up(subscriber.id)

    def _wake(self, subscriber: Subscriber[Feed]) -> None:
        subscriber.resting = None
        self._lag(subscriber)

    async def _catch_up(self) -> None:
        try:
            while self._lagging and self.writable and not self.closed:
                kept = self.kept
                subscriber = next(iter(self._lagging)) if kept is None else kept.subscriber
                # To the end of the queue: many of them advance side by side.
                del self._lagging[subscriber]
                self._lagging[subscriber] = None
                await read_some(self, subscriber)
        except Exception as error:  # noqa: BLE001 (of the peer that was told; the reading's own are handled)
            self.hub.end_peer(self, error)
        finally:
            self._is_reading = False
