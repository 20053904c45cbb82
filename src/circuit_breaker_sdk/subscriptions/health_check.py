"""Look at all subscriptions and connections of a client, and say how it is."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from time import perf_counter
from typing import Any, Final, NamedTuple, final

from circuit_breaker_sdk.config import TransportKind
from circuit_breaker_sdk.connections import (
    Connection,
    EventStreamConnection,
    Link,
    PollConnection,
    Supervisor,
)
from circuit_breaker_sdk.delivery.delivery import Delivery, Look
from circuit_breaker_sdk.delivery.subscription_state import SubscriptionState
from circuit_breaker_sdk.observability import (
    BreakerStatus,
    ConnectionStatus,
    Health,
    HealthLimits,
    MemoryHolder,
    MemoryStatus,
    SubscriptionCounts,
    SubscriptionStatus,
    TransportCounts,
)
from circuit_breaker_sdk.recovery.connection_subscriptions import Member
from circuit_breaker_sdk.subscriptions.health_verdict import Finding, Findings, judge
from circuit_breaker_sdk.subscriptions.manager import SubscriptionManager
from circuit_breaker_sdk.urls import redacted

__all__ = ["look"]

_LIVE = SubscriptionState.LIVE
_PAUSED = SubscriptionState.PAUSED
_MAX_ASKED: Final = 64
"""The most subscriptions that one look asks about: the server answers for no more."""


class _Backlog(NamedTuple):
    events: int
    size_bytes: int
    delivery: Delivery[Any]
    waiting_seconds: float


@final
class _Survey:
    """Result of one look at all subscriptions.

    ``by_link`` has how many each link carries: of a stream that is on none, under ``None``.
    """

    def __init__(self, now: float) -> None:
        self.now = now
        self.by_state: dict[SubscriptionState, int] = dict.fromkeys(SubscriptionState, 0)
        self.by_link: dict[Link | None, int] = {}
        self.backlogs: list[_Backlog] = []
        self.held: set[Link | None] = set()

    def take(self, running: Sequence[Delivery[Any]]) -> list[Delivery[Any]]:
        """Look at some subscriptions; return those that are away. The loop over all: kept short."""
        away, by_state, by_link = [], self.by_state, self.by_link
        for delivery in running:
            state, link, seen = delivery.state, delivery.link, delivery.look
            by_state[state] += 1
            by_link[link] = by_link.get(link, 0) + 1
            if state is not _LIVE and state is not _PAUSED:
                away.append(delivery)
            if (
                seen is None
                or seen.events != delivery.events_received
                or seen.waiting_since is not None
                or delivery.consumer.buffer.items
            ):
                self._look_closer(delivery, link)
        return away

    def _look_closer(self, delivery: Delivery[Any], link: Link | None) -> None:
        consumer, received, seen = delivery.consumer, delivery.events_received, delivery.look
        if consumer.on_asked is not None:
            consumer.on_asked()  # a reader in another thread may have taken some
        is_first = seen is None
        if seen is None:
            seen = delivery.look = Look()
        if received != seen.events:
            seen.events = received
            seen.event_at = self.now if link is None or link.received_at is None else link.received_at
        buffered = consumer.buffered
        taken = received - consumer.filtered - consumer.buffer.dropped - buffered
        if not buffered:
            seen.waiting_since = None
        elif seen.waiting_since is None or seen.taken != taken:
            # Of a stopped one it is known since when; in any case not before something was taken last.
            stopped = delivery.paused_seconds if is_first else 0.0
            seen.waiting_since = self.now - stopped
        seen.taken = taken
        if buffered and seen.waiting_since is not None:
            waiting = self.now - seen.waiting_since
            self.backlogs.append(_Backlog(buffered, consumer.buffer.size_bytes, delivery, waiting))
            if delivery.is_stopped and delivery.state is not _PAUSED:
                self.held.add(link)  # it reads nothing for the sake of this one: its silence is no fault


def look(manager: SubscriptionManager, limits: HealthLimits, *, worst: int) -> Health:
    """Look at everything once: the cost grows with the number of subscriptions, and with nothing else.

    The server is asked how far those that are told of are behind: the next look tells it.

    :param worst: how many subscriptions, and holders of memory, are told of each.
    """
    survey = _Survey(perf_counter())
    members = manager.members
    away = {member: survey.take(tuple(member.running)) for member in members}
    connections = tuple(_connection(member, survey.now) for member in members)
    transports = _transports(survey.by_link)
    memory = _memory(manager, survey.backlogs, worst)
    findings = Findings(
        connections=[
            _finding(member, status, away[member], survey)
            for member, status in zip(members, connections, strict=True)
        ],
        waiting=[
            (each.waiting_seconds, each.delivery.label, each.delivery.id, each.delivery.is_stopped)
            for each in survey.backlogs
            if each.waiting_seconds >= limits.consumer_seconds
        ],
        transports=transports,
        uses_websocket=manager.uses_websocket,
        buffered_bytes=memory.buffered_bytes,
        max_buffered_bytes=memory.max_buffered_bytes,
    )
    verdict, reasons = judge(findings, limits)
    chosen = _choose(members, survey, worst)
    told = tuple(_subscription(each, survey.now) for each in chosen)
    _ask_behind(each.delivery for each in chosen[:_MAX_ASKED])
    latency = manager.latency
    return Health(
        verdict=verdict,
        reasons=reasons,
        connections=connections,
        transports=transports,
        subscriptions=SubscriptionCounts(
            starting=survey.by_state[SubscriptionState.STARTING],
            live=survey.by_state[_LIVE],
            reconnecting=survey.by_state[SubscriptionState.RECONNECTING],
            paused=survey.by_state[_PAUSED],
        ),
        worst=told,
        longest_wait_seconds=max((each.waiting_seconds for each in survey.backlogs), default=0.0),
        memory=memory,
        latency=None if latency is None else latency.summary(),
    )


def _transport(link: Link | None) -> TransportKind | None:
    if isinstance(link, Connection):
        return TransportKind.WEBSOCKET
    if isinstance(link, EventStreamConnection):
        return TransportKind.SSE
    return TransportKind.POLL if isinstance(link, PollConnection) else None


def _transports(by_link: Mapping[Link | None, int]) -> TransportCounts:
    counts: dict[str, int] = {}
    for link, count in by_link.items():
        kind = "none" if link is None else _transport(link) or "query"
        counts[str(kind)] = counts.get(str(kind), 0) + count
    return TransportCounts(**counts)


def _connection(member: Member, now: float) -> ConnectionStatus:
    supervisor = member.supervisor
    present = supervisor.present
    read_at = None if present is None else present.received_at
    return ConnectionStatus(
        url=supervisor.url,
        state=supervisor.state,
        subscriptions=member.subscriptions,
        round_trip_seconds=_round_trip_seconds(present),
        seconds_since_frame=None if read_at is None else max(0.0, now - read_at),
        reconnects=supervisor.counters.reconnection_attempts,
        failures=supervisor.counters.failures,
        circuit_breakers=_breakers(supervisor),
    )


def _round_trip_seconds(connection: Connection | None) -> float | None:
    if connection is None:
        return None
    answered, waiting = connection.round_trip_seconds, connection.unanswered_seconds
    return waiting or None if answered is None else max(answered, waiting)


def _breakers(supervisor: Supervisor) -> tuple[BreakerStatus, ...]:
    return tuple(
        BreakerStatus(url=redacted(each.url), state=each.breaker.state) for each in supervisor.endpoints
    )


def _finding(
    member: Member, status: ConnectionStatus, away: Sequence[Delivery[Any]], survey: _Survey
) -> Finding:
    present = member.supervisor.present
    # Something has to come even when nothing happens: pongs, or the server's own pings.
    is_watched = present is not None and (present.resume_negotiated or status.round_trip_seconds is not None)
    reconnecting = [each for each in away if each.state is SubscriptionState.RECONNECTING]
    return Finding(
        status=status,
        is_silent_by_fault=is_watched and present not in survey.held,
        away_seconds=[each.away_seconds for each in reconnecting],
        starting_seconds=[each.away_seconds for each in away if each.state is SubscriptionState.STARTING],
    )


def _memory(manager: SubscriptionManager, backlogs: Sequence[_Backlog], worst: int) -> MemoryStatus:
    fullest = heapq.nlargest(worst, backlogs, key=lambda each: each.size_bytes)
    return MemoryStatus(
        buffered_events=sum(each.events for each in backlogs),
        buffered_bytes=manager.buffered_bytes,
        max_buffered_bytes=manager.max_buffered_bytes,
        holders=tuple(
            MemoryHolder(
                label=each.delivery.label,
                id=each.delivery.id,
                buffered_events=each.events,
                buffered_bytes=each.size_bytes,
            )
            for each in fullest
        ),
    )


def _choose(members: Sequence[Member], survey: _Survey, worst: int) -> list[_Backlog]:
    """Choose those with the most buffered events; where fewer have any, the oldest others too."""
    chosen = heapq.nlargest(worst, survey.backlogs, key=lambda each: each[:2])
    told = {each.delivery for each in chosen}
    for member in members:
        for delivery in member.running:
            if len(chosen) >= worst:
                break
            if delivery not in told:
                chosen.append(_Backlog(0, 0, delivery, 0.0))
    return chosen


def _telling(delivery: Delivery[Any]) -> Connection | None:
    """Return the connection that a subscription is on, or was when it was stopped, if its server tells."""
    link = delivery.last_link
    return link if isinstance(link, Connection) and link.tells_behind and link.is_usable else None


def _ask_behind(deliveries: Iterable[Delivery[Any]]) -> None:
    """Ask the servers how many records subscriptions are behind, in one message for each connection."""
    asked: dict[Connection, dict[str, Delivery[Any]]] = {}
    for delivery in deliveries:
        connection = _telling(delivery)
        if connection is not None and delivery.received is not None:
            asked.setdefault(connection, {})[delivery.id] = delivery
    for connection, by_id in asked.items():
        cursors = {id_: each.received for id_, each in by_id.items() if each.received is not None}
        connection.ask_behind(cursors, partial(_note_behind, by_id))


def _note_behind(asked: Mapping[str, Delivery[Any]], told: Mapping[str, int]) -> None:
    for id_, count in told.items():
        delivery = asked.get(id_)
        if delivery is not None and delivery.look is not None:
            delivery.look.behind = count


def _subscription(backlog: _Backlog, now: float) -> SubscriptionStatus:
    delivery = backlog.delivery
    seen = delivery.look
    event_at = None if seen is None else seen.event_at
    signs = [at for at in (event_at, delivery.signal_at) if at is not None]
    return SubscriptionStatus(
        label=delivery.label,
        id=delivery.id,
        state=delivery.state,
        transport=_transport(delivery.link),
        continuity=delivery.continuity,
        seconds_since_event=None if event_at is None else max(0.0, now - event_at),
        seconds_since_life=max(0.0, now - max(signs)) if signs else None,
        buffered_events=backlog.events,
        buffered_bytes=backlog.size_bytes,
        is_paused=delivery.is_stopped,
        waiting_seconds=backlog.waiting_seconds,
        records_behind=None if _telling(delivery) is None or seen is None else seen.behind,
    )
