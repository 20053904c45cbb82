"""Start what a server needs as one of several nodes on one log."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AsyncExitStack

from circuit_breaker_server.access.mutation_audit import AuditTrail
from circuit_breaker_server.engine.engine import Engine
from circuit_breaker_server.engine.nodes.membership import Membership, NodeReplaced
from circuit_breaker_server.log.event_log import LogError, ServingLog
from circuit_breaker_server.settings.server import ServerSettings
from circuit_breaker_server.start_errors import ServerStartError

__all__ = ["node_name", "require_shared_keys", "start_membership"]


def node_name(settings: ServerSettings) -> str:
    """Return the name of this node; empty for a server that has its log alone."""
    return settings.cluster.node if settings.cluster.is_shared else ""


def require_shared_keys(engine: Engine, settings: ServerSettings) -> None:
    """Refuse to be one of several nodes with keys and secrets of one's own.

    :raises ServerStartError: other nodes live, and there is no cluster key.
    """
    others = sorted(engine.nodes.others())
    if others and settings.cluster.urls and settings.cluster.key_file is None:
        raise ServerStartError(
            f"node {engine.nodes.me.name} shares the event log with {', '.join(others)}, and has no cluster "
            "key: it could not read their cursors and secrets. Give all of them the same "
            "--cluster-key-file; docs/cluster.md"
        )


async def start_membership(
    parts: AsyncExitStack,
    log: ServingLog,
    engine: Engine,
    *,
    trail: AuditTrail | None,
    on_end: Callable[[LogError], object],
) -> Membership | None:
    """Begin to send heartbeats and to listen to those of others; ``None`` where the log has one server.

    :param trail: its lines about records have to be on the disk before anybody removes the records.
    :param on_end: called if this server has to stop, as another one has taken its name.
    """
    if log.heartbeats is None:
        return None

    def stop(replaced: NodeReplaced) -> None:
        on_end(LogError(str(replaced)))

    def applied() -> int:
        return log.last_offset if trail is None else min(log.last_offset, trail.durable_offset)

    membership = Membership(
        engine.nodes,
        log.heartbeats,
        applied=applied,
        on_replaced=stop,
    )
    await membership.start()
    parts.push_async_callback(membership.aclose)
    return membership
