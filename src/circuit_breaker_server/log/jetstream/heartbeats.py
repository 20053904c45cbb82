"""Heartbeats of nodes over core NATS: sent to a subject of their own, and kept nowhere."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import final

from nats.aio.msg import Msg

from circuit_breaker_server.log.jetstream.broker import Broker
from circuit_breaker_server.log.jetstream.errors import ApiError, BrokerUnavailable

__all__ = ["NatsHeartbeats"]


@final
class NatsHeartbeats:
    """See :class:`~circuit_breaker_server.log.heartbeats.Heartbeats`.

    :param stream: the name of the log's stream.
    """

    def __init__(self, broker: Broker, stream: str) -> None:
        self._broker = broker
        self._subject = f"{stream}-nodes"

    async def send(self, beat: bytes) -> None:
        """See the protocol."""
        with contextlib.suppress(ApiError, BrokerUnavailable):
            await self._broker.publish(self._subject, beat)

    async def listen(self, callback: Callable[[bytes], None]) -> None:
        """See the protocol."""

        async def received(message: Msg) -> None:
            callback(message.data)

        await self._broker.subscribe(self._subject, received)
