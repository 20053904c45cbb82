"""The registry of all WebSocket sessions: limit them per principal, review their rights, close them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import final

from circuit_breaker_sdk.transports.websocket import WebSocket
from circuit_breaker_server.bounded_log import BoundedLogger
from circuit_breaker_server.endpoints.principal_connections import PrincipalConnections
from circuit_breaker_server.endpoints.services import Services
from circuit_breaker_server.endpoints.websocket.dialects import SUBPROTOCOLS
from circuit_breaker_server.endpoints.websocket.session import Session
from circuit_breaker_server.gateway.guarded_calls import call_each, guarded
from circuit_breaker_server.gateway.subscription_plan import Plans
from circuit_breaker_server.logs import get_logger

__all__ = ["Sessions"]

logger = get_logger("session")
lines = BoundedLogger("session", lines_per_second=1_000)


@final
class Sessions:
    """All open sessions of a server.

    Example::

        sessions = Sessions(services, PrincipalConnections(allowed=20))
        Accept(subprotocol=agreed(request.subprotocols), open_sink=sessions.open)
        await sessions.aclose()
    """

    def __init__(self, services: Services, principals: PrincipalConnections) -> None:
        self._services = services
        self._plans = Plans(services.documents.schema)
        self._open: set[Session] = set()
        self._principals = principals
        self._tasks: set[asyncio.Task[None]] = set()
        # Once for all sessions: a bound method of its own for each would stay as long as the session.
        self._own_task, self._on_end, self._may_enter = self._own, self._ended, self._admit

    def __len__(self) -> int:
        """The number of open sockets."""
        return len(self._open)

    def open(self, socket: WebSocket, *, authorization: str | None = None) -> Session:
        """Begin a session on a socket whose handshake is done; one without a subprotocol closes with 4406.

        ``authorization`` is the header of that name.
        """
        session = Session(
            socket,
            self._services,
            self._plans,
            authorization=authorization,
            own=self._own_task,
            on_end=self._on_end,
            admit=self._may_enter,
        )
        self._open.add(session)
        lines.info("opened", remote=socket.remote, subprotocol=socket.subprotocol or "none")
        if socket.subprotocol not in SUBPROTOCOLS:
            session.refuse_subprotocol()
        return session

    def _admit(self, session: Session) -> bool:
        """Count a session for its principal; ``False``: there are too many of them."""
        return self._principals.enter(
            session.principal.id, session, on_error=partial(self._on_error, session)
        )

    def _ended(self, session: Session) -> None:
        self._open.discard(session)
        self._principals.leave(session.principal.id, session)

    def review(self) -> None:
        """Look again at what every peer may see: the policy has changed."""
        call_each(self._open, Session.review, self._on_error)

    def revoke(self, key_id: str) -> None:
        """Close the sockets that were opened with an API key."""
        revoked = [session for session in self._open if session.principal.key_id == key_id]
        call_each(revoked, Session.revoke, self._on_error)

    def closers(self) -> list[Callable[[], None]]:
        """Return for each open socket what closes it with 1012."""
        return [
            partial(guarded, session, Session.shut_down, self._on_error, otherwise=None)
            for session in self._open
        ]

    async def aclose(self) -> None:
        """Close every socket with 1012 after what is due on it; abort those that do not end in time."""
        sessions = list(self._open)
        call_each(sessions, Session.shut_down, self._on_error)
        try:
            async with asyncio.timeout(self._services.settings.shutdown_seconds):
                for session in sessions:
                    await session.wait_closed()
        except TimeoutError:
            call_each(sessions, Session.abort, self._on_error)
            for session in sessions:
                await session.wait_closed()
        while self._tasks:
            await asyncio.wait(self._tasks)

    def _on_error(self, session: Session, error: Exception) -> None:
        """Close a session that has raised: it may not go on by rights that were taken away."""
        logger.error("session_failed", remote=session.remote, exc_info=error)
        session.drop()

    def _own(self, task: asyncio.Task[None]) -> None:
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
