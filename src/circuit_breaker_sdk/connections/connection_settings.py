"""Settings of one connection."""

from __future__ import annotations

from typing import TYPE_CHECKING, final

import msgspec

from circuit_breaker_sdk.config import Heartbeat, MessageBatching, MessageLimits, Timeouts
from circuit_breaker_sdk.connections.credentials import Credentials
from circuit_breaker_sdk.observability.tracing import Tracer
from circuit_breaker_sdk.protocol.positions import Positions
from circuit_breaker_sdk.urls import redacted

if TYPE_CHECKING:
    import ssl

__all__ = ["ConnectionSettings"]


@final
class ConnectionSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Settings to open a connection to ``url``; ``repr`` shows no secret.

    :ivar tracer: makes spans, for which the server is asked for traces; ``None``: nothing does.
    :ivar positions: what answers have shown of the server's log.
    :ivar heartbeat: ``None`` for a connection that is believed to live until someone closes it.
    """

    url: str
    credentials: Credentials
    ssl: ssl.SSLContext | None = None
    limits: MessageLimits
    timeouts: Timeouts
    heartbeat: Heartbeat | None = None
    batching: MessageBatching = MessageBatching()
    tracer: Tracer | None = None
    positions: Positions = msgspec.field(default_factory=Positions)

    def __repr__(self) -> str:
        return f"ConnectionSettings(url={redacted(self.url)!r})"
