"""Answer who asks for the server's health: load balancers, supervisors, people."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, final

import msgspec
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from circuit_breaker_sdk._version import __version__
from circuit_breaker_server.endpoints.health import Health
from circuit_breaker_server.endpoints.http.admission import Admission
from circuit_breaker_server.endpoints.http.answers import JSON, NOT_STORED
from circuit_breaker_server.paths import HEALTH_PATH, LIVE_PATH, READY_PATH
from circuit_breaker_server.security.authentication import Unauthenticated

__all__ = ["HealthRoutes"]

_encode: Final = msgspec.json.Encoder().encode


@final
class HealthRoutes:
    """The routes of health; none needs authentication, and one tells more to those who have it.

    :param counts: returns what callers with credentials see besides, by the name it has in the JSON.

    Example::

        Starlette(routes=HealthRoutes(health, admission, counts).routes)
    """

    def __init__(
        self, health: Health, admission: Admission, counts: Callable[[], Mapping[str, object]]
    ) -> None:
        self._health = health
        self._admission = admission
        self._counts = counts
        self.routes = [
            Route(HEALTH_PATH, self._describe, methods=["GET"]),
            Route(LIVE_PATH, self._live, methods=["GET"]),
            Route(READY_PATH, self._ready, methods=["GET"]),
        ]

    async def _live(self, _request: Request) -> Response:
        return _answer(200, {"status": "live"})

    async def _ready(self, _request: Request) -> Response:
        reasons = await self._health.reasons()
        return _answer(503 if reasons else 200, _status(reasons))

    async def _describe(self, request: Request) -> Response:
        if JSON not in request.headers.get("accept", ""):
            return PlainTextResponse("ok", headers={"Vary": "Accept"})
        told: dict[str, object] = {
            **_status(await self._health.reasons()),
            "version": __version__,
            "uptimeSeconds": round(self._health.uptime_seconds, 3),
        }
        try:
            self._admission.caller_of(request)
        except Unauthenticated:
            pass
        else:
            told |= self._counts()
            if (nodes := self._health.nodes) is not None:
                told["nodes"] = nodes
                told["logFormat"] = self._health.log_format
        return _answer(200, told)


def _status(reasons: list[str]) -> dict[str, object]:
    return {"status": "not ready" if reasons else "ready", "reasons": reasons}


def _answer(status: int, told: Mapping[str, object]) -> Response:
    return Response(_encode(told), status, {**NOT_STORED, "Vary": "Accept, Authorization"}, JSON)
