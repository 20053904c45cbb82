"""Start the parts of a server as its settings say: audit log, engine, gateway, retention, cursors."""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from circuit_breaker_server import logs
from circuit_breaker_server.access.mutation_audit import AuditTrail, position_of
from circuit_breaker_server.access.streams import Views
from circuit_breaker_server.admission.draining import Draining
from circuit_breaker_server.endpoints.endpoints import Endpoints
from circuit_breaker_server.endpoints.health import Health
from circuit_breaker_server.engine.cursor import Cursors
from circuit_breaker_server.engine.engine import Engine
from circuit_breaker_server.engine.event_derivation import EVENT_BODIES, derive
from circuit_breaker_server.engine.mcp.providers import custom
from circuit_breaker_server.engine.nodes.membership import Membership
from circuit_breaker_server.engine.secrets import Secrets
from circuit_breaker_server.engine.state_projector import RecordNotApplied
from circuit_breaker_server.engine_secrets import EngineSecrets
from circuit_breaker_server.gateway.gateway import Gateway
from circuit_breaker_server.gateway.pacing import Pacing
from circuit_breaker_server.instruments import Instruments
from circuit_breaker_server.log.event_log import EventLog, ServingLog
from circuit_breaker_server.node_parts import node_name, require_shared_keys
from circuit_breaker_server.performance import Performance
from circuit_breaker_server.security.api_keys import ApiKeys
from circuit_breaker_server.security.audit import AuditLog, AuditPaths, Rotation
from circuit_breaker_server.security.policy import PolicySource
from circuit_breaker_server.settings.server import ServerSettings
from circuit_breaker_server.start_errors import ServerStartError
from circuit_breaker_server.storage.cluster_key import ClusterKey
from circuit_breaker_server.storage.cursor_keys import CursorKeys
from circuit_breaker_server.storage.private_files import exposed_files
from circuit_breaker_server.storage.secret_store import SecretStore
from circuit_breaker_server.tracing import Tracer

if TYPE_CHECKING:  # it needs the extra cluster
    from circuit_breaker_server.shared.bucket import Bucket

__all__ = [
    "make_audit_trail",
    "make_cursors",
    "make_health",
    "make_tracer",
    "observe",
    "open_api_keys",
    "open_audit_log",
    "open_bucket",
    "open_policy",
    "open_secrets",
    "read_cluster_key",
    "start_engine",
    "start_gateway",
    "start_performance",
    "warn_of_exposed_files",
]

logger = logs.get_logger("server")


def make_tracer(settings: ServerSettings) -> Tracer | None:
    """Make what makes spans; ``None`` where the settings want none.

    :raises ServerStartError: the extra ``otel`` is missing.
    """
    if not settings.traces:
        return None
    # Here, not above: it needs the extra otel.
    from circuit_breaker_server.otel_tracing import OpenTelemetryTracer  # noqa: PLC0415 (see the line above)

    return OpenTelemetryTracer()


def read_cluster_key(settings: ServerSettings) -> ClusterKey | None:
    """Read the key that the servers of a cluster share; ``None`` where the settings name no file.

    :raises SecretStoreError: it cannot be used.
    """
    return None if settings.cluster.key_file is None else ClusterKey.read(settings.cluster.key_file)


def warn_of_exposed_files(data_dir: Path) -> None:
    """Log a warning if other users of this machine may use files of the data directory."""
    exposed = exposed_files(data_dir)
    if exposed:
        logger.warning(
            "data_exposed",
            path=str(exposed[0]),
            files=len(exposed),
            advice=f"others than the owner may use them: chmod -R go-rwx {shlex.quote(str(data_dir))}",
        )


async def open_api_keys(
    parts: AsyncExitStack, settings: ServerSettings, bucket: Bucket | None
) -> ApiKeys | None:
    """Open the API keys, of the bucket or of the data directory, and watch them.

    ``None`` where the settings want none.
    """
    if not settings.api_keys:
        return None
    if bucket is None:
        keys = await ApiKeys.open(settings.data_dir)
    else:
        # Here, not above: it needs the extra cluster.
        from circuit_breaker_server.security.shared_api_keys import (  # noqa: PLC0415 (see the line above)
            move_api_keys,
            open_shared_api_keys,
        )

        await move_api_keys(settings.data_dir, bucket)
        keys = await open_shared_api_keys(bucket)
    parts.push_async_callback(keys.aclose)
    return keys


async def open_bucket(
    parts: AsyncExitStack, settings: ServerSettings, cluster_key: ClusterKey | None
) -> Bucket | None:
    """Open the bucket that all nodes share; ``None`` without brokers or without a cluster key.

    It is opened after the log, which tells what is amiss with the brokers.

    :raises LogError: it cannot be used; the text says why.
    """
    if cluster_key is None or not settings.cluster.urls:
        return None
    # Here, not above: it needs the extra cluster.
    from circuit_breaker_server.shared.bucket import Bucket  # noqa: PLC0415 (see the line above)

    bucket = await Bucket.open(settings.cluster, cluster_key)
    parts.push_async_callback(bucket.aclose)
    return bucket


async def open_secrets(
    settings: ServerSettings, cluster_key: ClusterKey | None, bucket: Bucket | None
) -> Secrets:
    """Open the store of secrets: the bucket, or the file of the data directory.

    :raises SecretStoreError: it cannot be used.
    """
    keys = () if cluster_key is None else cluster_key.secret_keys
    if bucket is not None:
        # Here, not above: it needs the extra cluster.
        from circuit_breaker_server.shared.moving import move_secrets  # noqa: PLC0415 (see the line above)

        return await move_secrets(settings.data_dir, bucket, keys)
    is_shared = settings.cluster.log_socket is not None
    return await SecretStore.open(settings.data_dir, cluster_keys=keys, is_shared=is_shared)


async def open_policy(
    parts: AsyncExitStack, settings: ServerSettings, bucket: Bucket | None
) -> PolicySource | None:
    """Open the policy, of the bucket or of a file, and watch it; ``None`` where the settings name none."""
    if settings.policy_from == "bucket" and bucket is not None:
        # Here, not above: it needs the extra cluster.
        from circuit_breaker_server.security.shared_policy import (  # noqa: PLC0415 (see the line above)
            open_shared_policy,
        )

        policy = await open_shared_policy(bucket)
    elif settings.policy_file is not None:
        policy = await PolicySource.open(settings.policy_file)
    else:
        return None
    parts.push_async_callback(policy.aclose)
    return policy


async def open_audit_log(
    parts: AsyncExitStack, settings: ServerSettings, events: EventLog, *, is_open: bool
) -> AuditLog | None:
    """Open the audit log; ``None`` where the settings want none."""
    if not (settings.audit or (settings.audit is None and not is_open)):
        return None
    anchor = settings.audit_anchor_file
    if anchor is not None and settings.cluster.log_socket is not None:
        anchor = anchor.with_name(f"{anchor.name}.{settings.cluster.node}")
    paths = AuditPaths.of(settings.own_dir, key=settings.audit_key_file, anchor=anchor)
    rotation = Rotation(
        max_bytes=settings.audit_rotate_bytes,
        max_seconds=settings.audit_rotate_seconds,
        keep_files=settings.audit_keep_files,
    )
    log = await AuditLog.open(
        paths, rotation=rotation, first_position=position_of(events, events.last_offset)
    )
    parts.push_async_callback(log.aclose)
    return log


def make_audit_trail(
    parts: AsyncExitStack, settings: ServerSettings, log: EventLog, audit: AuditLog | None
) -> AuditTrail | None:
    """Make what writes the audit lines of records; ``None`` without an audit log."""
    if audit is None:
        return None
    trail = AuditTrail(audit, log, node=node_name(settings))
    parts.push_async_callback(trail.aclose)
    return trail


def make_cursors(
    settings: ServerSettings, log: EventLog, cluster_key: ClusterKey | None, *, is_open: bool
) -> Cursors:
    """Make the cursors of the log, which are sealed where callers are authenticated.

    :raises ServerStartError: their key cannot be read.
    """
    if is_open:
        return Cursors(log.epoch)
    try:
        keys = CursorKeys.read(settings.data_dir, cluster_key)
    except OSError as error:
        path = error.filename or settings.data_dir
        raise ServerStartError(f"{path}: {error.strerror}; make it readable for this user") from error
    except ValueError as error:
        raise ServerStartError(str(error)) from error
    return Cursors(log.epoch, keys.present, [(each.key, each.until) for each in keys.previous])


async def start_engine(
    parts: AsyncExitStack,
    settings: ServerSettings,
    log: ServingLog,
    trail: AuditTrail | None,
    secrets: Secrets,
    *,
    is_open: bool,
    on_failure: Callable[[RecordNotApplied], None],
    address: str,
) -> Engine:
    """Start the engine, once the audit log has the lines of all records that it missed.

    :param on_failure: called if a record cannot be applied to the state.
    :param address: where this server serves, for whoever asks the cluster.
    :raises ServerStartError: other nodes use the log, and this one does not share their keys.
    """
    enforced = not is_open if settings.enforce_budgets is None else settings.enforce_budgets
    engine = Engine(
        log,
        now=log.now,
        snapshot_every=settings.snapshot_every,
        secrets=EngineSecrets(secrets),
        provider_seconds=settings.provider_seconds,
        mcp_check_seconds=settings.mcp_check_seconds,
        mcp_session_seconds=settings.mcp_session_seconds,
        oauth_providers=[custom(each) for each in settings.oauth_providers],
        idempotency_seconds=settings.idempotency_seconds,
        enforce_budgets=enforced,
        outbound=settings.outbound,
        redirects=settings.allowed_redirects,
        limits=settings.caller_limits,
        audit=None if trail is None else trail.follow,
        catch_up=None if trail is None else trail.catch_up,
        may_begin=None if trail is None else trail.check,
        node=node_name(settings),
        address=address,
        is_log_away=lambda: log.outage is not None,
    )
    engine.on_failure(on_failure)
    parts.push_async_callback(engine.aclose)
    await engine.start()
    require_shared_keys(engine, settings)
    return engine


async def start_gateway(
    parts: AsyncExitStack,
    settings: ServerSettings,
    log: EventLog,
    engine: Engine,
    *,
    nothing: Engine,
    cursors: Cursors,
    instruments: Instruments,
    tracer: Tracer | None = None,
) -> Gateway:
    """Start the gateway, which fans the records of the log out to subscribers."""
    gateway = Gateway(
        log,
        derive=derive,
        select=engine.select,
        ring_size=settings.ring_size,
        ring_bytes=settings.ring_bytes,
        advance_seconds=settings.advance_seconds,
        begin_seconds=settings.begin_seconds,
        cursors=cursors,
        pacing=Pacing.of(settings.rates.events_per_second),
        look=Views(engine).of,
        select_nothing=nothing.select,
        skipped=engine.skipped,
        instruments=instruments,
        tracer=tracer,
        bodies=EVENT_BODIES,
    )
    parts.push_async_callback(gateway.aclose)
    await gateway.start()
    return gateway


def start_performance(
    parts: AsyncExitStack,
    settings: ServerSettings,
    log: EventLog,
    gateway: Gateway,
    instruments: Instruments,
) -> Performance:
    """Begin to look for what is slow."""
    performance = Performance(instruments, lambda: (log.last_offset, gateway.last_offset))
    parts.callback(performance.close)
    performance.change(settings)
    return performance


def make_health(
    settings: ServerSettings,
    log: ServingLog,
    gateway: Gateway,
    draining: Draining,
    *,
    membership: Membership | None,
    bucket: Bucket | None,
) -> Health:
    """Make what tells whether the server is ready."""
    return Health(
        log,
        gateway,
        draining,
        data_dir=settings.data_dir,
        min_free_disk_bytes=settings.min_free_disk_bytes,
        membership=membership,
        bucket=bucket,
    )


def observe(
    instruments: Instruments,
    settings: ServerSettings,
    *,
    health: Health,
    gateway: Gateway,
    endpoints: Endpoints,
    audit: AuditLog | None,
) -> None:
    """Let what is not counted in one place be read from where it is."""
    instruments.observe("connections", lambda: endpoints.connections)
    instruments.observe("channels", lambda: gateway.channels)
    instruments.observe("events.delivered", lambda: gateway.events_delivered)
    instruments.observe("events.written.bytes", lambda: gateway.event_bytes)
    instruments.observe("log.last_offset", lambda: health.log.last_offset)
    instruments.observe("log.size.bytes", lambda: _size_bytes(settings.data_dir))
    instruments.observe("tail.lag.records", lambda: health.tail_lag_records)
    instruments.observe("audit.backlog.bytes", lambda: 0 if audit is None else audit.pending_bytes)
    instruments.observe("ready", lambda: int(not health.known_reasons()))


def _size_bytes(data_dir: Path) -> int:
    size = 0
    for name in ("events.db", "events.db-wal"):
        with contextlib.suppress(OSError):
            size += (data_dir / name).stat().st_size
    return size
