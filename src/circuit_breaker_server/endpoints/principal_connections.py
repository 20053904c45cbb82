"""Limit the connections of one principal: WebSockets and event streams together."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, Protocol, final

from circuit_breaker_server.gateway.guarded_calls import call_each

__all__ = ["TOO_MANY", "PrincipalConnection", "PrincipalConnections"]

TOO_MANY: Final = "too many connections of one principal"
"""Why a connection of a principal that has too many is refused or closed."""

ROTATION_SECONDS: Final = 30.0
"""The time for which a principal may have twice as many connections, to replace each of them."""


class PrincipalConnection(Protocol):
    """The interface of a connection that is counted."""

    def end_surplus(self) -> None:
        """Close: its principal has too many, and has not given one up for it."""
        ...


@final
class PrincipalConnections:
    """Counts the connections of each principal; callers without an id are not counted.

    :ivar allowed: connections of one principal; those above another bound than before stay open.

    Example::

        if principals.enter("user-7", session, on_error=session_failed):
            principals.leave("user-7", session)
    """

    def __init__(self, *, allowed: int) -> None:
        """``allowed`` connections of one principal; for half a minute twice as many."""
        self.allowed = allowed
        # Of each principal the connections in the order in which they began.
        self._of: dict[str, dict[PrincipalConnection, Callable[[Exception], None]]] = {}

    def enter(
        self, principal: str, connection: PrincipalConnection, *, on_error: Callable[[Exception], None]
    ) -> bool:
        """Count a connection; ``False``: there are too many.

        :param on_error: called if the connection raises when it is closed for being one too many.
        """
        if not principal:
            return True
        own = self._of.setdefault(principal, {})
        if len(own) >= 2 * self.allowed:
            return False
        own[connection] = on_error
        if len(own) > self.allowed:
            asyncio.get_running_loop().call_later(ROTATION_SECONDS, self._end_surplus, principal)
        return True

    def leave(self, principal: str, connection: PrincipalConnection) -> None:
        """Count a connection no more. Idempotent."""
        own = self._of.get(principal)
        if own is not None:
            own.pop(connection, None)
            if not own:
                del self._of[principal]

    def _end_surplus(self, principal: str) -> None:
        surplus = list(self._of.get(principal, {}).items())[self.allowed :]
        call_each(surplus, lambda each: each[0].end_surplus(), lambda each, error: each[1](error))
