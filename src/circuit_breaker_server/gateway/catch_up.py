"""Send a subscriber that is behind its channel's ring what it misses, page by page from the log."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import islice
from typing import Any, Final, NamedTuple, Protocol, TypeAlias

from circuit_breaker_sdk.errors import GraphQLError
from circuit_breaker_server.access.caller import Caller
from circuit_breaker_server.gateway.channel import END_OF_RECORD, RESUMED, Channel, Position
from circuit_breaker_server.gateway.event_reader import (
    MAX_PAGE_BYTES,
    MIN_PAGE_BYTES,
    Found,
    Page,
)
from circuit_breaker_server.gateway.hub import Hub
from circuit_breaker_server.gateway.pacing import TokenBucket
from circuit_breaker_server.gateway.peer import MAX_WRITE_BYTES, Frame, Peer
from circuit_breaker_server.gateway.record_traces import RecordTraces
from circuit_breaker_server.gateway.resume_gaps import Gap
from circuit_breaker_server.gateway.subscriber import Subscriber
from circuit_breaker_server.gateway.subscription_errors import gap_error, internal_error
from circuit_breaker_server.graphql.selection_compiler import UnfitValue
from circuit_breaker_server.log.event_log import LogError
from circuit_breaker_server.logs import get_logger

__all__ = ["Kept", "LaggingFeed", "read_some"]

_MAX_STRIDE: Final = 512
_LOOK_AT_ONCE: Final = 256
"""So many events and records are looked at between two looks at the clock."""

logger = get_logger("gateway")

Lagging: TypeAlias = Subscriber[Any]
"""A subscriber of whatever feed: catching up is told its feed apart."""


class Kept(NamedTuple):
    """The rest of a page that was read from the log and that a full socket did not take."""

    subscriber: Lagging
    channel: Channel
    page: Page


class LaggingFeed(Protocol):
    """The interface of the feed whose subscribers catch up.

    :ivar kept: the rest of a page that the socket did not take; it is sent before another page is read.
    :ivar page_bytes: how much is read at once.
    """

    kept: Kept | None
    page_bytes: int
    peer: Peer

    @property
    def caller(self) -> Caller: ...

    @property
    def hub(self) -> Hub: ...

    @property
    def frame(self) -> Frame: ...

    @property
    def resume(self) -> bool: ...

    @property
    def traces(self) -> RecordTraces | None: ...

    @property
    def writable(self) -> bool: ...

    def stop_lagging(self, subscriber: Lagging, /) -> None:
        """Read for a subscriber no more."""
        ...

    def rest(self, subscriber: Lagging, bucket: TokenBucket, /) -> None:
        """Send a subscription nothing until it may get events again."""
        ...

    def fail(self, subscriber: Lagging, errors: Sequence[GraphQLError], /) -> None:
        """End one operation with errors."""
        ...

    def complete(self, subscriber: Lagging, /) -> None:
        """End one operation whose stream is over and was sent whole."""
        ...


async def read_some(feed: LaggingFeed, subscriber: Lagging) -> None:
    """Read a page for a subscriber behind the ring and write it, or let the subscriber rejoin the ring."""
    bucket = subscriber.bucket
    try:
        if subscriber.unverified is not None:
            reader = feed.hub.reader
            start = subscriber.unverified
            cursor = await start.find(reader, subscriber.channel, partial(_turn, feed))
            if subscriber.ended:
                return
            subscriber.unverified = None
            subscriber.position = (cursor.offset, cursor.index)
            subscriber.cursor = start.text or reader.cursors.of(cursor)
            if feed.resume:
                feed.peer.signal([(subscriber.id, subscriber.cursor)])
        channel = subscriber.channel
        kept, feed.kept = feed.kept, None
        if kept is not None and kept.channel is channel:
            page = kept.page
        else:
            if _rejoin(feed, subscriber):
                return
            if bucket is not None and bucket.is_empty:
                feed.rest(subscriber, bucket)
                return
            feed.hub.instruments.catch_up_reads += 1
            page = await feed.hub.reader.read(
                channel,
                after=subscriber.position,
                max_bytes=feed.page_bytes,
                # Of what cannot be sent yet nothing is read.
                max_records=None if bucket is None else bucket.count * subscriber.stride,
            )
        await _send(feed, subscriber, channel, page)
    except Gap as gap:
        feed.fail(subscriber, [gap_error(gap.reason)])
    except LogError:
        logger.exception("log_unreadable", operation=subscriber.id)
        unavailable = GraphQLError(message="the event log cannot be read", extensions={"code": "UNAVAILABLE"})
        feed.fail(subscriber, [unavailable])
    except Exception:
        logger.exception("catch_up_failed", operation=subscriber.id, field=subscriber.channel.stream)
        feed.fail(subscriber, [internal_error()])


async def _turn(feed: LaggingFeed) -> None:
    """Wait until the event loop has time for reading the log, principals in turn."""
    gate, caller = feed.hub.catch_up_gate, feed.caller
    if not gate.enter_now():
        await gate.enter(caller.id or caller.address)


async def _send(feed: LaggingFeed, subscriber: Lagging, channel: Channel, page: Page) -> None:
    """Write a page, as long as the socket takes it; between the writes others have their turns."""
    while True:
        await _turn(feed)
        # Rights may have changed meanwhile: then it is read again.
        if subscriber.ended or subscriber.channel is not channel:
            return
        if not feed.writable:
            feed.kept = Kept(subscriber, channel, page)
            feed.page_bytes = MIN_PAGE_BYTES
            return
        if not _write_some(feed, subscriber, page):
            return


def _write_some(feed: LaggingFeed, subscriber: Lagging, page: Page) -> bool:
    """Write some events of a page in one write; return whether there may be more to write of it."""
    bucket, channel = subscriber.bucket, subscriber.channel
    allowed = None if bucket is None else bucket.count
    resume = feed.resume
    payloads: list[bytes] = []
    size = 0
    prev = subscriber.cursor.encode()
    refused: Found | None = None
    offsets: list[int] = []
    # As few calls for each event as there can be.
    for found in _some(feed, page, offsets):
        if found is None:
            continue
        if len(payloads) == allowed:
            refused = found
            break
        last = found
        position, cursor, events, record, body, item = found
        try:
            head = events.encode(record, body, item)
        except UnfitValue:
            head = page.encoder.encode_derived(record, position[1])
        if resume:
            place = cursor.encode()
            payload = RESUMED % (head, place, prev)
            prev = place
        else:
            payload = head + b"}"
        payloads.append(payload)
        size += len(payload)
        if size > MAX_WRITE_BYTES:
            break
    subscriber.denied += page.take_denied()
    feed.hub.instruments.catch_up_fallbacks += page.encoder.take_fallbacks()
    if payloads:
        subscriber.position, subscriber.cursor, events, record, body, item = last
        _write(feed, subscriber, payloads, offsets)
        if channel.selection.finite is not None and channel.ends_with(events.value(record, body, item)):
            feed.complete(subscriber)
        if subscriber.ended:
            return False
    if bucket is not None and refused is not None:
        subscriber.position = _end_before(refused, subscriber.position)
        feed.rest(subscriber, bucket)
        return False
    if not page.is_read:
        return True
    _end_page(feed, subscriber, page)
    return False


def _write(feed: LaggingFeed, subscriber: Lagging, payloads: list[bytes], offsets: list[int]) -> None:
    """Write payloads, framed, count them and take their tokens."""
    if subscriber.bucket is not None:
        subscriber.bucket.take(len(payloads))
    prefix, counts = subscriber.prefix, feed.hub.instruments
    frames = prefix.join(feed.frame(len(prefix), _traced(feed, payloads, offsets)))
    counts.events_delivered += len(payloads)
    subscriber.delivered += len(payloads)
    counts.event_bytes += len(frames)
    feed.peer.write(frames)


def _end_page(feed: LaggingFeed, subscriber: Lagging, page: Page) -> None:
    """Go on behind a page that was sent whole, in the ring if it has all that follows."""
    subscriber.position = page.reached
    feed.page_bytes = min(feed.page_bytes * 2, MAX_PAGE_BYTES)
    # Where little matches, more is read at once than may be sent.
    subscriber.stride = 1 if page.has_events else min(subscriber.stride * 8, _MAX_STRIDE)
    _rejoin(feed, subscriber)


def _some(feed: LaggingFeed, page: Page, offsets: list[int]) -> Iterable[Found | None]:
    """Return as many events of a page as are looked at in one turn."""
    events = islice(page, _LOOK_AT_ONCE)
    return events if feed.traces is None else _noting(events, offsets)


def _traced(feed: LaggingFeed, payloads: list[bytes], offsets: list[int]) -> Sequence[bytes]:
    """Return the payloads with their traces, for a peer that asked for them."""
    return payloads if feed.traces is None else feed.traces.added(payloads, offsets)


def _noting(events: Iterable[Found | None], offsets: list[int]) -> Iterator[Found | None]:
    """Note the offset of each event's record."""
    for found in events:
        if found is not None:
            offsets.append(found[0][0])
        yield found


def _rejoin(feed: LaggingFeed, subscriber: Lagging) -> bool:
    seq = subscriber.channel.seq_after(subscriber.position)
    if seq is None:
        return False
    feed.stop_lagging(subscriber)
    subscriber.seq = subscriber.joined_seq = seq
    subscriber.live = True
    subscriber.denied_before = subscriber.channel.denied
    finite = subscriber.channel.selection.finite
    if not subscriber.is_current:
        feed.hub.schedule(feed)
    elif finite is not None and finite.is_over():
        # It resumed after the last event.
        feed.complete(subscriber)
    else:
        feed.peer.caught_up(subscriber.id)
    return True


def _end_before(refused: Found, sent: Position) -> Position:
    """Return the place after the last event that was sent: after its record, if no more of it follows."""
    offset, _ = refused[0]
    return sent if offset == sent[0] else (sent[0], END_OF_RECORD)
