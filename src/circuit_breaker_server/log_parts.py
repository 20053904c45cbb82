"""Open the event log as the settings say, and keep it within its limits."""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

from circuit_breaker_server.access.mutation_audit import AuditTrail
from circuit_breaker_server.engine.engine import Engine
from circuit_breaker_server.engine.nodes.membership import Membership
from circuit_breaker_server.engine.retention import Limits, Retention
from circuit_breaker_server.gateway.gateway import Gateway
from circuit_breaker_server.instruments import Instruments
from circuit_breaker_server.log.directory_lock import DirectoryLock
from circuit_breaker_server.log.event_log import LogError, ServingLog
from circuit_breaker_server.log.shared_file.worker_log import WorkerLog
from circuit_breaker_server.log.sqlite import SqliteEventLog
from circuit_breaker_server.settings.server import ServerSettings
from circuit_breaker_server.start_errors import ServerStartError
from circuit_breaker_server.storage.private_files import make_private_directory

__all__ = ["open_log", "start_retention"]


async def open_log(parts: AsyncExitStack, settings: ServerSettings, instruments: Instruments) -> ServingLog:
    """Open the event log: on NATS JetStream where the settings name brokers, else in the data directory.

    A worker's is written by another process.

    :raises LogError: it cannot be used; the text says why.
    :raises ServerStartError: the settings name brokers, and the extra ``cluster`` is missing.
    """
    cluster = settings.cluster
    if cluster.log_socket is not None:
        _lock(parts, settings.own_dir)
        try:
            connected = socket.socket(fileno=cluster.log_socket)
        except OSError as error:
            raise ServerStartError(
                f"cluster.log_socket: {cluster.log_socket} is no open socket ({error.strerror}); "
                "`serve --workers` sets it, nobody else"
            ) from error
        shared = await WorkerLog.open(settings.data_dir, connected, instruments=instruments)
        parts.push_async_callback(shared.aclose)
        return shared
    if not cluster.urls:
        in_file = await SqliteEventLog.open(settings.data_dir, instruments=instruments)
        parts.push_async_callback(in_file.aclose)
        return in_file
    try:
        # Here, not above: it needs the extra cluster.
        from circuit_breaker_server.log.jetstream import (  # noqa: PLC0415 (see the line above)
            JetStreamEventLog,
            read_credentials,
        )
    except ModuleNotFoundError as error:
        raise ServerStartError(
            f"the event log on NATS needs the package {error.name}: "
            "pip install 'circuit-breaker-sdk[server,cluster]'"
        ) from error
    # The directory still holds the keys, the secrets and the audit log, which have one writer.
    _lock(parts, settings.data_dir)
    log = await JetStreamEventLog.open(
        ",".join(cluster.urls),
        name=cluster.stream,
        replicas=cluster.replicas,
        write_patience_seconds=cluster.write_patience_seconds,
        open_seconds=cluster.connect_seconds,
        monitoring_url=cluster.monitoring_url,
        credentials=read_credentials(cluster),
        instruments=instruments,
    )
    parts.push_async_callback(log.aclose)
    return log


def _lock(parts: AsyncExitStack, directory: Path) -> None:
    try:
        make_private_directory(directory)
    except OSError as error:
        raise LogError(f"{directory}: cannot be made a data directory ({error.strerror})") from error
    parts.callback(DirectoryLock(directory).release)


def start_retention(
    parts: AsyncExitStack,
    settings: ServerSettings,
    log: ServingLog,
    engine: Engine,
    *,
    trail: AuditTrail | None,
    gateway: Gateway,
    membership: Membership | None,
) -> None:
    """Start the removal of records that the settings do not keep."""
    limits = Limits(
        seconds=settings.keep_seconds, size_bytes=settings.keep_bytes, records=settings.keep_records
    )

    def may_trim_before() -> int | None:
        if membership is None:
            return None
        return membership.slowest() + 1 if engine.keeps_the_log else 0

    retention = Retention(
        log,
        limits,
        _durable(engine, trail),
        gateway.advance,
        may_trim_before=may_trim_before,
        every_seconds=settings.trim_every_seconds,
        now=lambda: log.now().timestamp(),
    )
    parts.push_async_callback(retention.aclose)
    retention.start()


def _durable(engine: Engine, trail: AuditTrail | None) -> Callable[[int], Awaitable[None]]:
    """Return what makes records expendable: the state and the audit log no longer need them."""

    async def make_durable(offset: int) -> None:
        await engine.make_durable(offset)
        if trail is not None:
            await trail.make_durable()

    return make_durable
