"""All ways into the server: make them over the same services, tell them what was revoked, close them."""

from __future__ import annotations

import asyncio
import random
from typing import Final, final

from circuit_breaker_server.endpoints.event_stream.routes import EventStreamRoutes
from circuit_breaker_server.endpoints.event_stream.shared_streams import SharedStreams
from circuit_breaker_server.endpoints.event_stream.stream_registry import EventStreams
from circuit_breaker_server.endpoints.health import Health
from circuit_breaker_server.endpoints.http.admission import Admission
from circuit_breaker_server.endpoints.http.health_routes import HealthRoutes
from circuit_breaker_server.endpoints.http.node_routes import NodeRoutes
from circuit_breaker_server.endpoints.http.operations import Operations
from circuit_breaker_server.endpoints.http.routes import HttpRoutes
from circuit_breaker_server.endpoints.long_poll.polls import Polls
from circuit_breaker_server.endpoints.principal_connections import PrincipalConnections
from circuit_breaker_server.endpoints.services import Services
from circuit_breaker_server.endpoints.websocket.session_registry import Sessions
from circuit_breaker_server.engine.engine import Engine
from circuit_breaker_server.graphql.idempotent_execution import Once

__all__ = ["Endpoints"]

_APART_SECONDS: Final = 0.01
_STEP_SECONDS: Final = 0.001


@final
class Endpoints:
    """The ways into the server.

    :ivar principals: counts the connections of each principal.
    :ivar sessions: the WebSockets.
    :ivar streams: the streams of server-sent events.
    :ivar polls: the long polls.
    :ivar routes: what answers HTTP requests, event streams and polls among them: an ASGI application.

    Example::

        endpoints = Endpoints(services, once, health)
        endpoints.revoke(key.id)
        await endpoints.aclose()
    """

    def __init__(
        self, services: Services, once: Once, health: Health, *, engine: Engine | None = None
    ) -> None:
        """``engine`` is the one whose log's format administrators raise; ``None``: they cannot."""
        settings = services.settings
        self.principals = PrincipalConnections(allowed=settings.max_connections_per_principal)
        self.sessions = Sessions(services, self.principals)
        self.streams = EventStreams(services, self.principals)
        self._shared = SharedStreams(self.streams)
        self.polls = Polls(
            services.gateway,
            services.documents,
            max_operations=settings.max_operations,
            poll_bytes=settings.poll_bytes,
            begin_seconds=settings.begin_seconds,
            authenticator=services.authenticator,
        )
        admission, operations = (
            Admission(services),
            Operations(services.execute, once, services.instruments, services.tracer),
        )
        streams = EventStreamRoutes(services, admission, operations, self.streams, self._shared)
        self._gateway = services.gateway
        self._log = health.log
        health_routes = HealthRoutes(health, admission, self._counts)
        self.routes = HttpRoutes(
            services,
            admission,
            operations,
            self.polls,
            streams,
            health=health_routes,
            nodes=None if engine is None else NodeRoutes(engine),
        )

    @property
    def connections(self) -> dict[str, int]:
        """The number of open connections that wait for events, by their kind."""
        return {
            "websocket": len(self.sessions),
            "event_stream": len(self.streams),
            "poll": len(self.polls),
        }

    def _counts(self) -> dict[str, object]:
        return {
            "connections": self.connections,
            "channels": self._gateway.channels,
            "lastOffset": self._log.last_offset,
        }

    def review(self) -> None:
        """Look again at what every peer may see: the policy has changed."""
        self.sessions.review()
        self.streams.review()
        self.polls.review()

    def revoke(self, key_id: str) -> None:
        """End what was opened with an API key."""
        self.sessions.revoke(key_id)
        self.streams.revoke(key_id)
        self.polls.revoke(key_id)

    async def drain(self, seconds: float) -> None:
        """Close every connection, in no order, each at its own moment: the clients come back one by one.

        :param seconds: how long this takes at most; few connections take 10 ms each.
        """
        closers = [*self.sessions.closers(), *self.streams.closers(), *self.polls.closers()]
        random.shuffle(closers)
        loop = asyncio.get_running_loop()
        began, apart = loop.time(), min(_APART_SECONDS, seconds / max(1, len(closers)))
        for number, close in enumerate(closers):
            wait = began + number * apart - loop.time()
            # Very many are closed a few at a time, so that others have their turn.
            if wait > _STEP_SECONDS:
                await asyncio.sleep(wait)
            # What was committed reaches the connection before its end.
            self._gateway.flush()
            close()

    async def aclose(self) -> None:
        """Answer every poll, close every WebSocket and stream behind what is due on it."""
        self.polls.stop()
        await asyncio.gather(self.sessions.aclose(), self.streams.aclose())
        await self._shared.aclose()
