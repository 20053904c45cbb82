"""The endpoints of HTTP on a real port, over the scripted log and gateway."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import cast, final

import aiohttp
import uvicorn

from circuit_breaker_server.admission.connection_limits import Peers
from circuit_breaker_server.admission.draining import Draining
from circuit_breaker_server.config import RateSettings, ServerSettings
from circuit_breaker_server.endpoints.endpoints import Endpoints
from circuit_breaker_server.endpoints.health import Health
from circuit_breaker_server.endpoints.services import Execute, Services
from circuit_breaker_server.engine.events import Selection
from circuit_breaker_server.gateway.gateway import Gateway
from circuit_breaker_server.gateway.pacing import Pacing
from circuit_breaker_server.graphql.documents import Documents
from circuit_breaker_server.graphql.idempotent_execution import Once
from circuit_breaker_server.net.http_protocol import guarded_protocol
from circuit_breaker_server.security.authentication import Authenticator
from circuit_breaker_server.security.rate_limits import Rates
from tests.server.gateway import worlds
from tests.server.gateway.worlds import SCHEMA, ScriptedLog
from tests.server.stage import answer_nothing

__all__ = ["HttpStage", "http_stage"]


@final
@dataclass(frozen=True, slots=True)
class HttpStage:
    """Endpoints under test.

    :ivar root: the URL of the server, without a path.
    """

    log: ScriptedLog
    gateway: Gateway
    endpoints: Endpoints
    http: aiohttp.ClientSession
    root: str
    port: int


@contextlib.asynccontextmanager
async def http_stage(
    log: ScriptedLog | None = None,
    *,
    select: Callable[[str, Mapping[str, object]], Selection] = worlds.select,
    execute: Execute = answer_nothing,
    ring_size: int = 1024,
    page_records: int = 256,
    authenticator: Authenticator | None = None,
    pacing: Pacing | None = None,
    rates: Rates | None = None,
    settings: Mapping[str, float] = MappingProxyType({}),
) -> AsyncIterator[HttpStage]:
    """Serve the endpoints; ``settings`` are numbers of ``ServerSettings``."""
    log = log or ScriptedLog()
    documents = Documents(SCHEMA)
    whole = ServerSettings(data_dir=Path("unused"), **settings)  # type: ignore[arg-type]  # the test's numbers
    async with worlds.running(
        log,
        select=select,
        ring_size=ring_size,
        page_records=page_records,
        begin_seconds=whole.begin_seconds,
        pacing=pacing,
    ) as gateway:
        services = Services(
            gateway=gateway,
            documents=documents,
            execute=execute,
            epoch=log.epoch,
            settings=whole,
            authenticator=authenticator or Authenticator(),
            rates=rates or Rates(RateSettings()),
        )
        health = Health(log, gateway, Draining(), data_dir=Path(), min_free_disk_bytes=1)
        endpoints = Endpoints(services, cast("Once", None), health)  # no idempotency key is sent here
        peers = Peers(max_per_address=whole.max_connections_per_address)
        protocol = guarded_protocol(peers, head_seconds=10, body_seconds=10)
        with socket.create_server(("127.0.0.1", 0)) as listener:
            config = uvicorn.Config(
                endpoints.routes, http=protocol, ws="none", lifespan="off", log_config=None
            )
            config.load()
            server = uvicorn.Server(config)
            server.lifespan = config.lifespan_class(config)
            await server.startup(sockets=[listener])
            port = listener.getsockname()[1]
            try:
                async with aiohttp.ClientSession() as http:
                    yield HttpStage(log, gateway, endpoints, http, f"http://127.0.0.1:{port}", port)
            finally:
                await endpoints.aclose()
                await server.shutdown(sockets=[listener])
