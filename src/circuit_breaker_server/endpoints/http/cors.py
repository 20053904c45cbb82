"""CORS, and the refusal of pages that may not post: before the routes, for the paths that execute."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, final

from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from circuit_breaker_sdk.errors import GraphQLError
from circuit_breaker_server.admission.origins import Origins
from circuit_breaker_server.endpoints.http.answers import JSON, error_answer
from circuit_breaker_server.paths import FORMAT_PATH, OPERATION_PATHS, POLL_PATHS, STREAM_PATHS

__all__ = ["CrossOrigin"]

_PATHS: Final = frozenset((FORMAT_PATH, *OPERATION_PATHS, *POLL_PATHS, *STREAM_PATHS))
_PREFLIGHT: Final = {
    "Access-Control-Allow-Methods": "GET, POST, PUT, DELETE",
    "Access-Control-Allow-Headers": "Accept, Authorization, Content-Type, Idempotency-Key, Last-Event-ID, "
    "Log-Position, Resume-Traces, Resume-Version, traceparent, tracestate, X-GraphQL-Event-Stream-Token",
    "Access-Control-Max-Age": "600",
}
_EXPOSED: Final = b"Idempotency-Replayed, Log-Position, Retry-After, WWW-Authenticate"


@final
class CrossOrigin:
    """An ASGI application around another: asks for the origin of each request that may execute.

    Example::

        uvicorn.Config(CrossOrigin(routes, Origins(settings.allowed_origins)))
    """

    def __init__(self, app: ASGIApp, origins: Origins) -> None:
        self._app = app
        self._origins = origins

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if (
            scope["type"] != "http"
            or scope["path"] not in _PATHS
            or scope["method"] not in ("GET", "POST", "PUT", "DELETE", "OPTIONS")
        ):
            await self._app(scope, receive, send)
            return
        origin = _header(scope["headers"], b"origin")
        if origin is None:
            await self._app(scope, receive, send)
            return
        host = _header(scope["headers"], b"host")
        refusal = self._origins.refusal(origin, host=host, secure=scope["scheme"] == "https")
        if refusal is not None:
            error = GraphQLError(message=refusal, extensions={"code": "ORIGIN_NOT_ALLOWED"})
            answer = error_answer(403, JSON, [error], Vary="Origin")
            await answer(scope, receive, send)
            return
        if scope["method"] == "OPTIONS":
            named = {"Access-Control-Allow-Origin": origin, "Vary": "Origin", **_PREFLIGHT}
            await Response(status_code=204, headers=named)(scope, receive, send)
            return

        async def send_named(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [
                    *message.get("headers", ()),
                    (b"access-control-allow-origin", origin.encode("latin-1")),
                    (b"access-control-expose-headers", _EXPOSED),
                    (b"vary", b"Origin"),
                ]
            await send(message)

        await self._app(scope, receive, send_named)


def _header(headers: Iterable[tuple[bytes, bytes]], wanted: bytes) -> str | None:
    """Return a header; one that was sent twice has a comma, and is none that is allowed."""
    values = [value.decode("latin-1") for name, value in headers if name == wanted]
    return ", ".join(values) if values else None
