"""Admit requests: each in its turn, with credentials, and not too often."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from typing import Final, final

from starlette.requests import Request
from starlette.types import ASGIApp

from circuit_breaker_sdk.errors import GraphQLError
from circuit_breaker_server.access.caller import Caller
from circuit_breaker_server.admission.draining import DRAINING, RETRY_SECONDS
from circuit_breaker_server.endpoints.http.answers import (
    JSON,
    NOT_STORED,
    error_answer,
    media_type,
    remote_host,
)
from circuit_breaker_server.endpoints.http.request_headers import header, header_values
from circuit_breaker_server.endpoints.positions import BEHIND, HEADER, MAX_NAMED
from circuit_breaker_server.endpoints.services import Services
from circuit_breaker_server.graphql.limit_checks import REFUSED_SECONDS
from circuit_breaker_server.scheduling import Gate
from circuit_breaker_server.security.authentication import Unauthenticated
from circuit_breaker_server.security.rate_limits import RATE_LIMITED, Asked, too_often

__all__ = ["Admission"]

_POSITION: Final = HEADER.lower().encode()


@final
class Admission:
    """Finds the caller of each request, and refuses those without credentials or above their rate.

    Example::

        post = Admission(services).guarded(routes.post, "operations")
        response = await post(request)
    """

    def __init__(self, services: Services) -> None:
        self._services = services
        self._gate = Gate()

    def guarded(
        self, answer: Callable[[Request, Caller], Awaitable[ASGIApp]], asked: Asked
    ) -> Callable[[Request], Awaitable[ASGIApp]]:
        """Authenticate each request and limit its rate before ``answer`` is called; refuse the others."""

        async def guarded(request: Request) -> ASGIApp:
            await self.enter(request)
            try:
                caller = self.caller_of(request)
            except Unauthenticated as refused:
                return self.unauthenticated(request, str(refused))
            refusal = await self.refusal(request, caller, asked) or await self._refusal_behind(
                request, caller
            )
            return refusal or await answer(request, caller)

        return guarded

    async def _refusal_behind(self, request: Request, caller: Caller) -> ASGIApp | None:
        """Wait for what the caller has seen at another node; return the refusal where that takes too long."""
        positions = self._services.positions
        named = None if positions is None else header(request, _POSITION)
        if positions is None or named is None:
            return None
        texts = [each.strip() for each in named.split(",", MAX_NAMED)[:MAX_NAMED]]
        if await positions.reach(texts, caller.id or caller.address):
            return None
        error = GraphQLError(message=BEHIND, extensions={"code": "UNAVAILABLE"})
        headers = {"Retry-After": str(RETRY_SECONDS), **NOT_STORED}
        return error_answer(503, media_type(request), [error], **headers)

    async def enter(self, request: Request) -> None:
        """Wait for a turn of the event loop that has time for another request."""
        if not self._gate.enter_now():
            await self._gate.enter(remote_host(request))

    def caller_of(self, request: Request) -> Caller:
        """Return the caller.

        :raises Unauthenticated: the credentials are missing or not accepted.
        """
        services = self._services
        principal = services.authenticator.of_headers(header_values(request, b"authorization"))
        return Caller(principal, services.permissions, address=remote_host(request), audit=services.audit)

    def unauthenticated(self, request: Request, reason: str) -> ASGIApp:
        """Return the refusal of a request without valid credentials."""
        self._services.audit.refused(remote_host(request), request.url.path, reason)
        error = GraphQLError(message=reason, extensions={"code": "UNAUTHENTICATED"})
        headers = {"WWW-Authenticate": "Bearer", **NOT_STORED}
        return error_answer(401, media_type(request), [error], **headers)

    def draining_refusal(self) -> ASGIApp | None:
        """Return the refusal of what would last, while the server drains; ``None`` while it does not."""
        if not self._services.draining.is_on:
            return None
        error = GraphQLError(message=DRAINING, extensions={"code": "UNAVAILABLE"})
        return error_answer(503, JSON, [error], **{"Retry-After": str(RETRY_SECONDS), **NOT_STORED})

    async def refusal(
        self, request: Request, caller: Caller, asked: Asked, *, by_address: bool = False
    ) -> ASGIApp | None:
        """Count a request for its caller's rate; return the refusal, late, of one above it."""
        key = caller.address if by_address else caller.id or caller.address
        wait = self._services.rates.take(asked, key)
        if wait is None:
            return None
        await asyncio.sleep(min(wait, REFUSED_SECONDS))
        text, extensions = too_often(asked, wait)
        caller.audit.note(caller, "refuse", request.url.path, "refused", reason=RATE_LIMITED)
        headers = {"Retry-After": str(math.ceil(wait)), **NOT_STORED}
        error = GraphQLError(message=text, extensions=extensions)
        return error_answer(429, media_type(request), [error], **headers)
