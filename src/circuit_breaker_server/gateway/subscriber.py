"""One subscription's place in its channel: in the ring, or behind it in the log."""

from __future__ import annotations

import asyncio
from typing import Generic, TypeVar, final

from circuit_breaker_server.gateway.channel import Channel, Position
from circuit_breaker_server.gateway.pacing import TokenBucket
from circuit_breaker_server.gateway.subscription_start import Start

__all__ = ["Subscriber"]

FeedT = TypeVar("FeedT")
"""The type of the feed: a parameter, as the feed's file imports this one."""


@final
class Subscriber(Generic[FeedT]):
    """One operation's place in its channel.

    :ivar live: in the ring, at the number ``seq``; otherwise behind it, at ``position``.
    :ivar joined_seq: its number when it came into the ring.
    :ivar position: the place of the last event sent, or a later one before which nothing matched.
    :ivar cursor: of the last event sent; at first where the subscription began. The next event's ``prev``.
    :ivar unverified: where it is to begin, until that was looked up in the log.
    :ivar deadline: by when its stream has to begin.
    :ivar bucket: where events are paced: how many of them it may still get.
    :ivar resting: wakes it when it may get events again.
    :ivar stride: where events are paced: how many records are read for each event that may be sent.
    :ivar delivered: how many events it has got, but for those from the ring in which it is.
    :ivar denied: how many events it might not see, but for those of its channel since ``denied_before``.
    """

    __slots__ = (
        "bucket",
        "channel",
        "cursor",
        "deadline",
        "delivered",
        "denied",
        "denied_before",
        "ended",
        "feed",
        "id",
        "joined_seq",
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
        feed: FeedT,
        id: str,  # noqa: A002 (the protocol's own word)
        prefix: bytes,
        channel: Channel,
        *,
        position: Position,
        cursor: str,
        live: bool,
        unverified: Start | None,
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
        self.seq = self.joined_seq = channel.end_seq
        self.ended = False
        self.delivered = 0
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
