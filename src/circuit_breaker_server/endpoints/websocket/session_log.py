"""Log, count and audit the life of one session: admitted, acknowledged, refused, closed."""

from __future__ import annotations

import asyncio
from typing import final

from circuit_breaker_sdk.protocol.close_codes import CloseCode
from circuit_breaker_server.access.caller import Caller
from circuit_breaker_server.bounded_log import BoundedLogger
from circuit_breaker_server.endpoints.principal_connections import TOO_MANY
from circuit_breaker_server.endpoints.services import Services
from circuit_breaker_server.refusals import Refusal, reason_of_close
from circuit_breaker_server.security.authentication import REVOKED

__all__ = ["SessionLog"]

lines = BoundedLogger("session", lines_per_second=1_000)
"""Of the lives of connections; a thousand clients that come back at once are told one by one."""


@final
class SessionLog:
    """The lines of one session in the log and the audit log, and the count of its refusals.

    :ivar refusal: why the socket is closed, where its code alone does not say it.

    Example::

        log = SessionLog(services, socket.remote)
        log.note_admitted(caller)
        log.note_closed(1000, "", events=17, is_ours=False, caller=caller)
    """

    __slots__ = ("_opened_at", "_remote", "_services", "refusal")

    def __init__(self, services: Services, remote: str) -> None:
        """Begin now; ``remote`` is the peer's address and port."""
        self._services = services
        self._remote = remote
        self._opened_at = asyncio.get_running_loop().time()
        self.refusal: Refusal | None = None

    def note_surplus(self, caller: Caller) -> None:
        """Audit a connection that its principal may not have beside their others."""
        self._services.audit.note(caller, "connect", "websocket", "refused", reason=TOO_MANY)

    def note_admitted(self, caller: Caller) -> None:
        """Audit a connection whose principal may have it."""
        self._services.audit.note(caller, "connect", "websocket", "allowed")

    def note_acknowledged(self, caller: Caller, *, resume: bool) -> None:
        """Log a connection on which operations may begin."""
        lines.info("acknowledged", remote=self._remote, principal=caller.id, resume=resume)

    def note_revoked(self, caller: Caller) -> None:
        """Audit the end of a connection whose principal is no longer accepted."""
        self._services.audit.note(caller, "revoke", "websocket", "ended", reason=REVOKED)

    def note_refusal(self, code: int) -> None:
        """Count and log a close that refuses what the peer does or is."""
        reason = reason_of_close(code)
        if reason is not None:
            # The text of the close may have what the client wrote.
            self.refusal = self.refusal or reason
            self._services.instruments.refusals.note(
                self.refusal, "websocket", remote=self._remote, code=int(code)
            )

    def note_closed(
        self, code: int, reason: str, *, events: int, is_ours: bool, caller: Caller | None
    ) -> None:
        """Log and audit the end of a connection.

        :param events: the number of events that its subscriptions have got.
        :param is_ours: whether the server has closed it.
        :param caller: ``None`` for a peer that was never acknowledged.
        """
        lines.info(
            "closed",
            remote=self._remote,
            code=code,
            reason=self.refusal or (reason if is_ours else ""),
            seconds=round(asyncio.get_running_loop().time() - self._opened_at, 3),
            events=events,
        )
        if code == CloseCode.MESSAGE_TOO_BIG and not is_ours:
            self._services.instruments.refusals.note("too_large", "websocket", remote=self._remote, code=code)
        if caller is not None:
            self._services.audit.note(caller, "close", "websocket", "ended", reason=str(code))
