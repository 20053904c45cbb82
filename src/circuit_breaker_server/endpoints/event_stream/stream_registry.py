"""The registry of all event streams: admit them, review their rights, close them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import final

from circuit_breaker_server.access.caller import Caller
from circuit_breaker_server.endpoints.event_stream.event_frames import EventFrames
from circuit_breaker_server.endpoints.event_stream.event_stream import EventStream
from circuit_breaker_server.endpoints.principal_connections import PrincipalConnections
from circuit_breaker_server.endpoints.services import Services
from circuit_breaker_server.gateway.guarded_calls import call_each, guarded
from circuit_breaker_server.logs import get_logger

__all__ = ["EventStreams"]

logger = get_logger("event_stream")


def _nothing(_stream: EventStream) -> None:
    """Do nothing."""


@final
class EventStreams:
    """All open event streams of a server.

    Example::

        streams = EventStreams(services, principals)
        stream = streams.admit(caller, DistinctFrames(resume=True))
        await streams.aclose()
    """

    def __init__(self, services: Services, principals: PrincipalConnections) -> None:
        self._services = services
        self._principals = principals
        self._open: dict[EventStream, Callable[[EventStream], None]] = {}
        self._is_stopped = False

    def __len__(self) -> int:
        """The number of open streams."""
        return len(self._open)

    def admit(
        self,
        caller: Caller,
        frames: EventFrames,
        *,
        ends_with_last: bool = True,
        on_end: Callable[[EventStream], None] = _nothing,
        traces: bool = False,
    ) -> EventStream | None:
        """Make a stream, to be begun or aborted; ``None``: there are too many, or the server stops."""
        if self._is_stopped:
            return None
        stream = EventStream(
            self._services,
            caller,
            frames,
            on_end=self._ended,
            ends_with_last=ends_with_last,
            traces=traces,
        )

        def failed(error: Exception) -> None:
            self._on_error(stream, error)

        if not self._principals.enter(caller.principal.id, stream, on_error=failed):
            return None
        self._open[stream] = on_end
        return stream

    def _ended(self, stream: EventStream) -> None:
        on_end = self._open.pop(stream, _nothing)
        self._principals.leave(stream.principal.id, stream)
        on_end(stream)

    def review(self) -> None:
        """Look again at what every peer may see: the policy has changed."""
        call_each(list(self._open), EventStream.review, self._on_error)

    def revoke(self, key_id: str) -> None:
        """Cut the streams that were opened with an API key."""
        revoked = [stream for stream in self._open if stream.principal.key_id == key_id]
        call_each(revoked, EventStream.revoke, self._on_error)

    def closers(self) -> list[Callable[[], None]]:
        """Return for each open stream what cuts it behind what was written."""
        return [
            partial(guarded, stream, EventStream.shut_down, self._on_error, otherwise=None)
            for stream in self._open
        ]

    async def aclose(self) -> None:
        """Cut every stream behind what was written; abort those that do not end in time."""
        self._is_stopped = True
        streams = list(self._open)
        call_each(streams, EventStream.shut_down, self._on_error)
        try:
            async with asyncio.timeout(self._services.settings.shutdown_seconds):
                for stream in streams:
                    await stream.wait_closed()
        except TimeoutError:
            call_each(streams, EventStream.abort, self._on_error)
            for stream in streams:
                await stream.wait_closed()

    def _on_error(self, stream: EventStream, error: Exception) -> None:
        """Drop a stream that has raised: it may not go on by rights that were taken away."""
        logger.error("stream_failed", remote=stream.remote, exc_info=error)
        stream.abort()
