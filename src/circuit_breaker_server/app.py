"""Assemble, start and stop the server on its port."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Mapping
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Final, Self, final

from circuit_breaker_server import logs
from circuit_breaker_server.access.audit_lines import NO_AUDIT, Auditor
from circuit_breaker_server.access.caller import Caller, Permissions
from circuit_breaker_server.access.empty_engine import engine_of_nothing
from circuit_breaker_server.admission.draining import Draining
from circuit_breaker_server.endpoints.endpoints import Endpoints
from circuit_breaker_server.endpoints.positions import Positions
from circuit_breaker_server.endpoints.services import Services
from circuit_breaker_server.engine.engine import Engine
from circuit_breaker_server.engine.errors import EngineError
from circuit_breaker_server.engine.state_projector import RecordNotApplied
from circuit_breaker_server.graphql.documents import Document, Documents
from circuit_breaker_server.graphql.execute import execute
from circuit_breaker_server.graphql.idempotent_execution import Once
from circuit_breaker_server.graphql.schema import load_schema
from circuit_breaker_server.instruments import Instruments
from circuit_breaker_server.log.event_log import LogError
from circuit_breaker_server.log_parts import open_log, start_retention
from circuit_breaker_server.net.http_server import Serving
from circuit_breaker_server.net.listener import listen
from circuit_breaker_server.net.metrics_port import check_exporter, serve_metrics
from circuit_breaker_server.net.tls import TlsError, server_context
from circuit_breaker_server.node_parts import start_membership
from circuit_breaker_server.reloading import LiveParts, values_per_second
from circuit_breaker_server.scheduling import Slices
from circuit_breaker_server.security.audit import AuditLogError
from circuit_breaker_server.security.authentication import Authenticator, TokenKeyError
from circuit_breaker_server.security.policy import Policy
from circuit_breaker_server.security.rate_limits import Rates
from circuit_breaker_server.security.watched_file import FileRefused
from circuit_breaker_server.security.work_budgets import Budgets
from circuit_breaker_server.server_parts import (
    make_audit_trail,
    make_cursors,
    make_health,
    make_tracer,
    observe,
    open_api_keys,
    open_audit_log,
    open_bucket,
    open_policy,
    open_secrets,
    read_cluster_key,
    start_engine,
    start_gateway,
    start_performance,
    warn_of_exposed_files,
)
from circuit_breaker_server.settings.live import Changes, changes
from circuit_breaker_server.settings.server import ServerSettings
from circuit_breaker_server.start_errors import RecordNotAppliedError, ServerStartError
from circuit_breaker_server.storage.secret_store import SecretStoreError
from circuit_breaker_server.tracing import Tracer

__all__ = ["Server"]

_ANY_ADDRESS: Final[Mapping[str, str]] = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}  # noqa: S104 (not bound here: shown)

logger = logs.get_logger("server")


@final
class Server:
    """A Circuit Breaker server in this process.

    It serves from :meth:`start` to :meth:`aclose`, installs no signal handlers and prints nothing but its
    logs. A server is started once; to serve again, make a new one.

    Example::

        async with Server(ServerSettings(data_dir=Path("data"), port=0)) as server:
            print(server.url)
    """

    def __init__(self, settings: ServerSettings, *, tracer: Tracer | None = None) -> None:
        """``tracer`` makes spans of operations and deliveries; ``None``: as the settings say.

        :raises ServerStartError: the settings want traces, and the extra ``otel`` is missing.
        """
        self.settings = settings
        self._tracer = make_tracer(settings) if tracer is None else tracer
        self._parts = AsyncExitStack()
        self._port: int | None = None
        self._metrics_port: int | None = None
        self._engine: Engine | None = None
        self._started = False
        self._has_started = False
        self._closing: asyncio.Task[None] | None = None
        self._closed = asyncio.Event()
        self._draining = Draining()
        self.instruments = Instruments()
        """Counters and measurements of the server."""
        self._endpoints: Endpoints | None = None
        self._live_parts: LiveParts | None = None
        self.failure: str | None = None
        """Why the server stopped by itself: a record could not be applied to the state, or the event log
        ended for good; else ``None``."""

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    @property
    def port(self) -> int:
        """The TCP port it listens on; known once it has started."""
        if self._port is None:
            raise RuntimeError("the server has no port before it has started")
        return self._port

    @property
    def engine(self) -> Engine:
        """The engine that executes commands, for a program that runs the server in its own process."""
        if self._engine is None:
            raise RuntimeError("the server has no engine before it has started")
        return self._engine

    @property
    def url(self) -> str:
        """The URL of operations and WebSockets for a client on this machine; ``http`` or ``https``."""
        host = _ANY_ADDRESS.get(self.settings.host, self.settings.host)
        scheme = "http" if self.settings.tls_cert is None else "https"
        return f"{scheme}://{f'[{host}]' if ':' in host else host}:{self.port}/graphql"

    @property
    def metrics_url(self) -> str | None:
        """The URL of the metrics for Prometheus; ``None`` before the start, and without ``metrics_port``."""
        return None if self._metrics_port is None else f"http://127.0.0.1:{self._metrics_port}/metrics"

    async def start(self) -> None:
        """Open the log, fold the state, listen. When this returns the server answers.

        :raises ServerStartError: the port, the data directory, the log in it, the key of tokens or the
            certificate cannot be used, or other machines would reach a server without authentication
            (:attr:`ServerSettings.insecure`); nothing is left open.
        """
        if self._started:
            raise RuntimeError("a server is started once: make a new one")
        self._started = True
        logs.configure(self.settings.log_level, self.settings.log_format)
        if (exposure := self.settings.exposure()) is not None:
            raise ServerStartError(exposure)
        if self.settings.metrics_port is not None:
            check_exporter()
        async with AsyncExitStack() as parts:
            listener = parts.enter_context(listen(self.settings))
            self._port = listener.getsockname()[1]
            try:
                await self._start_parts(parts, listener)
            except RecordNotApplied as error:
                raise RecordNotAppliedError(str(error)) from error
            except (
                EngineError,
                LogError,
                SecretStoreError,
                TokenKeyError,
                TlsError,
                FileRefused,
                AuditLogError,
            ) as error:
                raise ServerStartError(str(error)) from error
            if self.failure is not None:
                raise ServerStartError(self.failure)
            self._parts = parts.pop_all()
        self._has_started = True
        logger.info("started", url=self.url, data_dir=str(self.settings.data_dir))

    async def _start_parts(self, parts: AsyncExitStack, listener: socket.socket) -> None:
        settings = self.settings
        # Before anything is made: the keys may be unfit.
        Authenticator.open(settings.token_keys)
        cluster_key = read_cluster_key(settings)
        tls = _tls(settings)
        log = await open_log(parts, settings, self.instruments)
        log.on_end(self._stop_for_good)
        bucket = await open_bucket(parts, settings, cluster_key)
        warn_of_exposed_files(settings.data_dir)
        keys = await open_api_keys(parts, settings, bucket)
        authenticator = Authenticator.open(settings.token_keys, keys=keys)
        permissions = Permissions(await open_policy(parts, settings, bucket))
        rates = Rates(settings.rates)
        audit_log = await open_audit_log(parts, settings, log, is_open=authenticator.is_open)
        audit = NO_AUDIT if audit_log is None else Auditor(audit_log)
        cursors = make_cursors(settings, log, cluster_key, is_open=authenticator.is_open)
        trail = make_audit_trail(parts, settings, log, audit_log)
        engine = await start_engine(
            parts,
            settings,
            log,
            trail,
            await open_secrets(settings, cluster_key, bucket),
            is_open=authenticator.is_open,
            on_failure=self._stop_for_good,
            address=self.settings.cluster.address or self.url,
        )
        self._engine = engine
        membership = await start_membership(parts, log, engine, trail=trail, on_end=self._stop_for_good)
        nothing = engine_of_nothing(log.epoch)
        # After the engine: its state must know a record before a subscriber hears of it.
        gateway = await start_gateway(
            parts,
            settings,
            log,
            engine,
            nothing=nothing,
            cursors=cursors,
            instruments=self.instruments,
            tracer=self._tracer,
        )
        start_retention(parts, settings, log, engine, trail=trail, gateway=gateway, membership=membership)
        slices, budgets = Slices(), Budgets(values_per_second(settings))
        parts.callback(slices.close)

        async def run(
            document: Document,
            variables: Mapping[str, object] | None,
            operation_name: str | None,
            caller: Caller,
            *,
            with_cursor: bool,
        ) -> bytes:
            kind = document.operation(operation_name).operation.value
            answering = execute(
                document,
                variables=variables,
                operation_name=operation_name,
                engine=engine,
                timeout_seconds=settings.execute_seconds,
                caller=caller,
                nothing=nothing,
                cursors=cursors,
                with_cursor=with_cursor,
                slices=slices,
                budgets=budgets,
                max_cost=documents.limits.max_cost,
            )
            return await self.instruments.measured(
                kind, answering, lambda: document.root_fields(operation_name)
            )

        once = Once(
            engine,
            timeout_seconds=settings.execute_seconds,
            nothing=nothing,
            cursors=cursors,
            slices=slices,
            budgets=budgets,
            max_cost=settings.document_limits.max_cost,
        )
        parts.push_async_callback(once.aclose)
        documents = Documents(load_schema(), limits=settings.document_limits, slices=slices, budgets=budgets)
        parts.push_async_callback(documents.aclose)
        services = Services(
            gateway=gateway,
            documents=documents,
            execute=run,
            epoch=log.epoch,
            settings=settings,
            authenticator=authenticator,
            permissions=permissions,
            audit=audit,
            rates=rates,
            draining=self._draining,
            instruments=self.instruments,
            tracer=self._tracer,
            positions=None if membership is None else Positions(log, gateway, cursors),
        )
        health = make_health(settings, log, gateway, self._draining, membership=membership, bucket=bucket)
        endpoints = self._endpoints = Endpoints(services, once, health, engine=engine)

        def review(policy: Policy) -> None:
            audit.changed(policy.version)
            endpoints.review()

        parts.callback(permissions.on_change(review))
        if keys is not None:
            parts.callback(keys.on_revoked(lambda key: endpoints.revoke(key.id)))
        serving = Serving(
            settings,
            endpoints,
            gateway,
            rates=rates,
            tls=tls,
            draining=self._draining,
            instruments=self.instruments,
        )
        performance = start_performance(parts, settings, log, gateway, self.instruments)
        self._live_parts = LiveParts(
            performance=performance,
            rates=rates,
            budgets=budgets,
            gateway=gateway,
            documents=documents,
            once=once,
            endpoints=endpoints,
            serving=serving,
            tls=tls,
        )
        await serving.start(listener)
        parts.push_async_callback(serving.aclose)
        observe(
            self.instruments, settings, health=health, gateway=gateway, endpoints=endpoints, audit=audit_log
        )
        self._metrics_port = await serve_metrics(parts, settings, self.instruments, refresh=health.reasons)

    def _stop_for_good(self, failure: LogError) -> None:
        """Close the server: its state no longer follows the log."""
        self.failure = self.failure or str(failure)
        # A server that is starting has nothing to close yet: its start fails.
        if self._closing is None and self._has_started:
            self._closing = asyncio.get_running_loop().create_task(self._close())

    def reload(self, settings: ServerSettings) -> Changes:
        """Take over the changes of settings that need no restart, without closing a connection.

        These are the rates (but not of frames), the limits of documents and of the number of connections,
        and the server's log; ``Setting.is_live`` says it of each. The certificate is read again. The policy
        and the API keys are watched, and need no reload.

        :returns: the changes that were taken over, and those that need a restart.
        :raises ServerStartError: the certificate cannot be used; nothing has changed.
        """
        if self._live_parts is None:
            raise RuntimeError("a server takes other settings over while it runs")
        found = changes(self.settings, settings)
        try:
            self._live_parts.take_over(found.settings)
        except TlsError as error:
            raise ServerStartError(str(error)) from error
        self.settings = found.settings
        logger.info("reloaded", changed=len(found.taken), need_restart=len(found.left))
        return found

    async def drain(self, seconds: float | None = None) -> None:
        """Stop without haste: be not ready, take on nothing new, close what is open one by one; then stop.

        Clients that keep their subscriptions come back one by one too, and resume. Cancelling leaves the
        server not ready, and open; :meth:`aclose` stops it at once.

        :param seconds: over which the closing is spread at most; ``None``: ``drain_seconds`` of the settings.
        """
        if self._endpoints is not None and self._closing is None:
            self._draining.begin()
            logger.info("draining", connections=sum(self._endpoints.connections.values()))
            await self._endpoints.drain(self.settings.drain_seconds if seconds is None else seconds)
        await self.aclose()

    async def aclose(self) -> None:
        """Stop: no new sockets, the open ones flushed and closed with 1012, then the parts. Idempotent.

        Cancelling the caller does not stop the closing; calling again waits for it.
        """
        if self._closing is None:
            self._closing = asyncio.get_running_loop().create_task(self._close())
        await asyncio.shield(self._closing)

    async def _close(self) -> None:
        try:
            await self._parts.aclose()
        finally:
            self._closed.set()
            logger.info("stopped")

    async def wait(self) -> None:
        """Wait until the server is closed."""
        await self._closed.wait()


def _tls(settings: ServerSettings) -> ssl.SSLContext | None:
    if settings.tls_cert is None or settings.tls_key is None:
        return None
    return server_context(settings.tls_cert, settings.tls_key)
