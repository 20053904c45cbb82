"""Count and log each HTTP request that is refused: around all routes, so that none can forget it."""

from __future__ import annotations

from typing import Final, final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from circuit_breaker_server.endpoints.http.answers import REFUSAL
from circuit_breaker_server.paths import (
    FORMAT_PATH,
    HEALTH_PATH,
    LIVE_PATH,
    OPERATION_PATHS,
    POLL_PATHS,
    READY_PATH,
    STREAM_PATHS,
)
from circuit_breaker_server.refusals import Refusal, Refusals, reason_of_status

__all__ = ["RefusalLog"]

_METHODS: Final = frozenset({"DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"})
_PATHS: Final = frozenset(
    (FORMAT_PATH, HEALTH_PATH, LIVE_PATH, READY_PATH, *OPERATION_PATHS, *POLL_PATHS, *STREAM_PATHS)
)


@final
class RefusalLog:
    """An ASGI application around another: notes each answer that is an error.

    Example::

        uvicorn.Config(RefusalLog(routes, instruments.refusals))
    """

    def __init__(self, app: ASGIApp, refusals: Refusals) -> None:
        self._app = app
        self._refusals = refusals

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_noted(message: Message) -> None:
            if message["type"] == "http.response.start" and (message["status"] >= 400 or REFUSAL in scope):
                self._note(scope, message["status"])
            await send(message)

        await self._app(scope, receive, send_noted)

    def _note(self, scope: Scope, status: int) -> None:
        reason: Refusal | None = scope.get(REFUSAL, reason_of_status(status))
        if reason is None:
            return
        if scope["path"] == READY_PATH and status == 503:
            reason = "not_ready"
        client = scope.get("client")
        self._refusals.note(
            reason,
            "request",
            remote="" if client is None else client[0],
            status=status,
            # A client may put anything into a path or a method: only those that the server knows are told.
            path=scope["path"] if scope["path"] in _PATHS else "other",
            method=scope["method"] if scope["method"] in _METHODS else "other",
        )
