"""The parts of one client: connections, polls, subscriptions and queries, made and closed together."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping, Sequence
from typing import final

from circuit_breaker_sdk.client_arguments import check_types, checked_transports
from circuit_breaker_sdk.config import (
    BufferLimits,
    CircuitBreakerPolicy,
    ErrorRecoveryPolicy,
    OfflineQueue,
    TransportKind,
)
from circuit_breaker_sdk.connections import (
    ConnectionSettings,
    EventStreamConnection,
    FallbackLinks,
    Link,
    PollConnection,
    SubscriptionConnectionPool,
    Supervisor,
    close_each,
)
from circuit_breaker_sdk.connections.pool_supervisor import PoolSupervisor
from circuit_breaker_sdk.connections.tokens import Tokens
from circuit_breaker_sdk.domains.execution import Executor
from circuit_breaker_sdk.errors import UsageError
from circuit_breaker_sdk.loop_affinity import LoopAffinity
from circuit_breaker_sdk.observability import SubscriptionMetrics
from circuit_breaker_sdk.subscriptions import (
    Changes,
    CursorStore,
    FileCursorStore,
    Snapshot,
    SubscriptionManager,
)
from circuit_breaker_sdk.urls import websocket_url

__all__ = ["ClientParts"]


@final
class ClientParts:
    """Put the parts of a client together; they share its credentials and its event loop.

    :ivar connections: the one WebSocket, or the pool.
    :ivar first: the connection that carries the first subscription; without a pool, the only one.
    :ivar manager: of all subscriptions.
    :ivar executor: of queries and mutations.
    :ivar tokens: the bearer tokens that all of them show.
    """

    def __init__(
        self,
        settings: ConnectionSettings,
        urls: Sequence[str],
        *,
        recovery: ErrorRecoveryPolicy | None,
        circuit_breaker: CircuitBreakerPolicy | None,
        pool: SubscriptionConnectionPool | None,
        buffer: BufferLimits | None,
        max_buffered_bytes: int,
        cursor_store: CursorStore | str | os.PathLike[str] | None,
        critical: bool,
        offline_queue: OfflineQueue | None,
        affinity: LoopAffinity,
        transports: Sequence[str],
    ) -> None:
        """The arguments are those of the client.

        :raises UsageError: one of them cannot be used.
        """
        check_types(
            recovery=(recovery, ErrorRecoveryPolicy),
            circuit_breaker=(circuit_breaker, CircuitBreakerPolicy),
            pool=(pool, SubscriptionConnectionPool),
            buffer=(buffer, BufferLimits),
            max_buffered_bytes=(max_buffered_bytes, int),
            critical=(critical, bool),
            offline_queue=(offline_queue, OfflineQueue),
        )
        if max_buffered_bytes <= 0:
            raise UsageError(f"max_buffered_bytes must be greater than 0, not {max_buffered_bytes}")
        policy, breaker = recovery or ErrorRecoveryPolicy(), circuit_breaker or CircuitBreakerPolicy()
        websocket_urls = [websocket_url(each) for each in urls]
        for each in websocket_urls:
            settings.credentials.proxies.of(each)  # now, and not when it is connected to

        def supervisor() -> Supervisor:
            return Supervisor(settings, urls=websocket_urls, policy=policy, breaker=breaker)

        pooled = None if pool is None else pool.serve(supervisor)
        self.first: Supervisor = supervisor() if pooled is None else pooled.first
        self.connections: Supervisor | PoolSupervisor = pooled or self.first
        kinds = checked_transports(transports)
        streams, polls = (
            EventStreamConnection(settings, websocket_urls),
            PollConnection(settings, websocket_urls),
        )
        by_kind: dict[TransportKind, Link] = {TransportKind.SSE: streams, TransportKind.POLL: polls}
        links = FallbackLinks(
            [by_kind[kind] for kind in kinds if kind in by_kind],
            rest_seconds=breaker.open_seconds,
            streams=streams if TransportKind.SSE in kinds else None,
            uses_websocket=TransportKind.WEBSOCKET in kinds,
        )
        self._fallbacks = (streams, polls)
        self.manager: SubscriptionManager = SubscriptionManager(
            self.first,
            links,
            buffer=buffer or BufferLimits(),
            timeouts=settings.timeouts,
            tracer=settings.tracer,
            policy=policy,
            max_buffered_bytes=max_buffered_bytes,
            cursor_store=(
                FileCursorStore(cursor_store) if isinstance(cursor_store, str | os.PathLike) else cursor_store
            ),
            snapshot_of=self._snapshot_of,
            changes_of=self._changes_of,
            critical=critical,
            retry_seconds=breaker.open_seconds,
            pool=pooled,
            affinity=affinity,
        )
        self.executor: Executor = Executor(settings, urls, offline_queue=offline_queue, affinity=affinity)
        self.tokens: Tokens = settings.credentials.tokens
        self._close_seconds = settings.timeouts.close_seconds

    def metrics(self) -> SubscriptionMetrics:
        """Take a snapshot of the counters; of a pool, their sums, and the longest round trip."""
        counters = self.connections.counters
        return SubscriptionMetrics(
            active_subscriptions=self.manager.active,
            messages_received=self.manager.messages_received,
            buffered_bytes=self.manager.buffered_bytes,
            connection_failures=counters.failures,
            reconnection_attempts=counters.reconnection_attempts,
            round_trip_seconds=self.connections.round_trip_seconds,
        )

    def _snapshot_of(self, field: str, arguments: Mapping[str, object]) -> Snapshot | None:
        from circuit_breaker_sdk.domains.snapshots import Snapshots  # noqa: PLC0415 (loaded when it is used)

        return Snapshots(self.executor, self.manager).of(field, arguments)

    def _changes_of(self, field: str, arguments: Mapping[str, object]) -> Changes | None:
        from circuit_breaker_sdk.domains.snapshots import Snapshots  # noqa: PLC0415 (loaded when it is used)

        return Snapshots(self.executor, self.manager).changes(field, arguments)

    async def aclose(self) -> None:
        """End every subscription and close all connections side by side, within ``close_seconds``."""
        caller = asyncio.current_task()
        await close_each(
            [
                # First: what it unsubscribes goes out before its connection closes.
                self.manager.aclose(caller=caller),
                *(link.aclose() for link in self._fallbacks),
                self.connections.aclose(),
                self.executor.aclose(),
                self.tokens.aclose(caller=caller),
            ],
            seconds=self._close_seconds,
        )
