"""Serve HTTP (uvicorn) and WebSockets (picows) on one port, and admit or refuse their requests."""

from __future__ import annotations

import asyncio
import math
import socket
import ssl
from collections.abc import Callable
from functools import partial
from typing import Final, final

import uvicorn

from circuit_breaker_sdk.config import MessageLimits
from circuit_breaker_sdk.transports.frame_pacing import Pacing
from circuit_breaker_server.admission.connection_limits import Peers, is_loopback
from circuit_breaker_server.admission.draining import DRAINING, RETRY_SECONDS, Draining
from circuit_breaker_server.admission.hosts import Hosts
from circuit_breaker_server.admission.origins import Origins
from circuit_breaker_server.endpoints.endpoints import Endpoints
from circuit_breaker_server.endpoints.http.cors import CrossOrigin
from circuit_breaker_server.endpoints.http.refusal_log import RefusalLog
from circuit_breaker_server.endpoints.websocket.dialects import agreed
from circuit_breaker_server.gateway.gateway import Gateway
from circuit_breaker_server.instruments import Instruments
from circuit_breaker_server.net.acceptor import Acceptor, Handshakes
from circuit_breaker_server.net.http_protocol import guarded_protocol
from circuit_breaker_server.net.listener import BACKLOG
from circuit_breaker_server.net.request_limits import RequestLimits
from circuit_breaker_server.net.websocket_upgrade import (
    Accept,
    Refuse,
    UpgradeAnswer,
    UpgradeRequest,
    upgrade_protocol,
)
from circuit_breaker_server.paths import OPERATION_PATHS
from circuit_breaker_server.refusals import RefusalKind
from circuit_breaker_server.security.rate_limits import Rates, too_often
from circuit_breaker_server.settings.server import ServerSettings

__all__ = ["Serving"]

# Few enough that a new connection for each flood gains nothing.
_FRAMES_AT_ONCE: Final = 100


@final
class Serving:
    """The port: connections accepted, uvicorn's HTTP, and the WebSockets that it hands over.

    Example::

        serving = Serving(settings, endpoints, gateway, rates=rates, tls=None)
        await serving.start(listener)
        await serving.aclose()
    """

    def __init__(
        self,
        settings: ServerSettings,
        endpoints: Endpoints,
        gateway: Gateway,
        *,
        rates: Rates,
        tls: ssl.SSLContext | None,
        draining: Draining | None = None,
        instruments: Instruments | None = None,
    ) -> None:
        self._draining = draining or Draining()
        self._counts = instruments or Instruments()
        self._rates = rates
        self._endpoints = endpoints
        self._gateway = gateway
        self._origins = Origins(settings.allowed_origins)
        peers = _peers(settings, self._counts, "connection")
        self._peers = [peers]
        http = guarded_protocol(
            peers,
            head_seconds=settings.head_seconds,
            body_seconds=settings.body_seconds,
            limits=_request_limits(settings),
            hosts=_hosts(settings),
            draining=self._draining,
            instruments=self._counts,
        )
        self._config = uvicorn.Config(
            RefusalLog(CrossOrigin(endpoints.routes, self._origins), self._counts.refusals),
            http=http,
            timeout_keep_alive=settings.keep_alive_seconds,
            ws=upgrade_protocol(
                self._decide,
                refusals=self._counts.refusals,
                limits=MessageLimits(max_message_bytes=settings.max_message_bytes),
                close_seconds=settings.close_seconds,
                pacing=Pacing(
                    frames_per_second=settings.rates.frames_per_second,
                    at_once=_FRAMES_AT_ONCE,
                ),
            ),
            lifespan="off",
            log_config=None,
            access_log=False,
            # No header of a client is trusted for its address.
            proxy_headers=False,
            server_header=False,
            timeout_graceful_shutdown=max(1, round(settings.shutdown_seconds)),
        )
        self._server = uvicorn.Server(self._config)
        self._http: Callable[..., asyncio.Protocol] = http
        self._is_secure = tls is not None
        handshakes = None
        if tls is not None:
            self._peers.append(_peers(settings, self._counts, "handshake"))
            handshakes = Handshakes(
                context=tls,
                peers=self._peers[-1],
                handshake_seconds=settings.head_seconds,
                close_seconds=settings.close_seconds,
            )
        self._acceptor = Acceptor(peers, self._speak, handshakes=handshakes, refusals=self._counts.refusals)
        self._listener: socket.socket | None = None
        self._ticking: asyncio.Task[None] | None = None

    async def start(self, listener: socket.socket) -> None:
        """Begin to listen and to accept on a socket that is bound; its maker closes it."""
        self._listener = listener
        self._config.load()
        self._server.lifespan = self._config.lifespan_class(self._config)
        # It accepts nothing by itself.
        await self._server.startup(sockets=[])
        listener.listen(BACKLOG)
        self._acceptor.start(listener)
        self._ticking = asyncio.get_running_loop().create_task(self._server.main_loop())

    def change(self, settings: ServerSettings) -> None:
        """Take other bounds of the number of connections; those above them stay open."""
        for peers in self._peers:
            peers.change(
                max_per_address=settings.max_connections_per_address, max_in_all=settings.max_connections
            )

    async def aclose(self) -> None:
        """Accept no more, flush and close every connection: WebSockets with 1012."""
        await self._acceptor.aclose()
        # What was committed reaches the sockets before their close frame.
        self._gateway.flush()
        await self._endpoints.aclose()
        self._server.should_exit = True
        if self._ticking is not None:
            await self._ticking
        await self._server.shutdown(sockets=[self._listener] if self._listener else None)

    def _speak(self) -> asyncio.Protocol:
        """Make the HTTP of one connection, as uvicorn would for those it accepts."""
        return self._http(
            config=self._config,
            server_state=self._server.server_state,
            app_state=self._server.lifespan.state,
        )

    def _decide(self, request: UpgradeRequest) -> UpgradeAnswer:
        if request.path not in OPERATION_PATHS:
            return Refuse(status=404, body=f"WebSockets are accepted at {', '.join(OPERATION_PATHS)}\n")
        if self._draining.is_on:
            return Refuse(status=503, body=DRAINING + "\n", headers={"Retry-After": str(RETRY_SECONDS)})
        headers = request.headers
        refusal = self._origins.refusal(
            headers.get("Origin"), host=headers.get("Host"), secure=self._is_secure
        )
        if refusal is not None:
            return Refuse(status=403, body=refusal + "\n")
        wait = self._rates.take("connects", request.remote.rpartition(":")[0])
        if wait is not None:
            text, _ = too_often("connects", wait)
            return Refuse(status=429, body=text + "\n", headers={"Retry-After": str(math.ceil(wait))})
        # Without one of our subprotocols the handshake is completed without any, then closed with 4406.
        authorization = request.headers.get("Authorization")
        return Accept(
            subprotocol=agreed(request.subprotocols),
            open_sink=partial(self._endpoints.sessions.open, authorization=authorization),
        )


def _peers(settings: ServerSettings, instruments: Instruments, kind: RefusalKind) -> Peers:
    return Peers(
        max_per_address=settings.max_connections_per_address,
        max_in_all=settings.max_connections,
        trusted=settings.trusted_proxies,
        refusals=instruments.refusals,
        kind=kind,
    )


def _request_limits(settings: ServerSettings) -> RequestLimits:
    return RequestLimits(
        request_line_bytes=settings.max_request_line_bytes,
        header_bytes=settings.max_header_bytes,
        headers_bytes=settings.max_headers_bytes,
        headers=settings.max_headers,
        trailers_bytes=settings.max_trailers_bytes,
        chunk_extensions_bytes=settings.max_chunk_extensions_bytes,
        body_bytes=settings.max_body_bytes,
    )


def _hosts(settings: ServerSettings) -> Hosts | None:
    if not settings.asks_for_host:
        return None
    host = settings.host
    own = (f"[{host}]" if ":" in host else host,) if is_loopback(host) else ()
    return Hosts((*settings.allowed_hosts, *own))
