"""Look again at what a connected peer may see, when the policy has changed."""

from __future__ import annotations

from collections.abc import Callable
from typing import final

from circuit_breaker_server.access.caller import OPEN, Caller
from circuit_breaker_server.endpoints.services import Services
from circuit_breaker_server.gateway.feed import Feed

__all__ = ["RightsReview"]


@final
class RightsReview:
    """The rights of one peer, as they were looked at last.

    Example::

        review = RightsReview(services, caller)
        review.look(feed, on_disabled=session.revoke)
    """

    __slots__ = ("_caller", "_rights", "_services")

    def __init__(self, services: Services, caller: Caller = OPEN) -> None:
        self._services = services
        self._caller = caller
        self._rights = caller.rights

    def look(self, feed: Feed, *, on_disabled: Callable[[], None]) -> None:
        """Move the subscriptions if the rights have changed; call back if the peer may do nothing more."""
        if self._services.permissions.is_disabled(self._caller.principal):
            on_disabled()
            return
        rights = self._caller.rights
        if rights != self._rights:
            self._rights = rights
            self._services.gateway.review(feed)
