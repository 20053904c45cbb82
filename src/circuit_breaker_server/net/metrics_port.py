"""Serve ``GET /metrics`` to Prometheus, on a port of its own that only this machine reaches."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Final

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from circuit_breaker_server.admission.connection_limits import Peers
from circuit_breaker_server.admission.hosts import Hosts
from circuit_breaker_server.instruments import Instruments
from circuit_breaker_server.net.http_protocol import guarded_protocol
from circuit_breaker_server.net.listener import listen_for_metrics
from circuit_breaker_server.settings.server import ServerSettings
from circuit_breaker_server.start_errors import ServerStartError

__all__ = ["check_exporter", "serve_metrics"]

_CONNECTIONS: Final = 20
_MISSING: Final = (
    "metrics_port (--metrics-port) needs the extra `prometheus`: "
    "pip install 'circuit-breaker-sdk[server,prometheus]'"
)


def check_exporter() -> None:
    """Load the exporter.

    :raises ServerStartError: the extra ``prometheus`` is not installed.
    """
    try:
        import circuit_breaker_server.prometheus_exporter  # noqa: F401, PLC0415 (of an extra)
    except ModuleNotFoundError as error:
        raise ServerStartError(_MISSING) from error


async def serve_metrics(
    parts: AsyncExitStack,
    settings: ServerSettings,
    instruments: Instruments,
    *,
    refresh: Callable[[], Awaitable[object]],
) -> int | None:
    """Serve the metrics until ``parts`` are closed; return the port, ``None`` where the settings name none.

    :param refresh: called before each reading.
    :raises ServerStartError: the port cannot be used, or the extra ``prometheus`` is not installed.
    """
    if settings.metrics_port is None:
        return None
    check_exporter()
    from circuit_breaker_server.prometheus_exporter import CONTENT_TYPE, exposition  # noqa: PLC0415 (as above)

    async def metrics(_request: Request) -> Response:
        await refresh()
        return Response(exposition(instruments), headers={"Content-Type": CONTENT_TYPE})

    listener = parts.enter_context(listen_for_metrics(settings, settings.metrics_port))
    config = uvicorn.Config(
        Starlette(routes=[Route("/metrics", metrics, methods=["GET"])]),
        http=guarded_protocol(
            Peers(max_per_address=_CONNECTIONS),
            head_seconds=settings.head_seconds,
            body_seconds=settings.body_seconds,
            hosts=Hosts(settings.allowed_hosts),
        ),
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=settings.keep_alive_seconds,
        timeout_graceful_shutdown=1,
    )
    config.load()
    server = uvicorn.Server(config)
    server.lifespan = config.lifespan_class(config)
    await server.startup(sockets=[listener])
    ticking = asyncio.get_running_loop().create_task(server.main_loop())

    async def stop() -> None:
        server.should_exit = True
        await ticking
        await server.shutdown(sockets=[listener])

    parts.push_async_callback(stop)
    port: int = listener.getsockname()[1]
    return port
