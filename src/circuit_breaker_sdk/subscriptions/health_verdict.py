"""From what was found to a verdict, and its reasons in plain words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from circuit_breaker_sdk.connections import BreakerState, ConnectionState
from circuit_breaker_sdk.observability import ConnectionStatus, HealthLimits, TransportCounts, Verdict

__all__ = ["Finding", "Findings", "judge"]

_TOLD = 3
"""Subscriptions that are named; of the others there is only the number."""

_Reason = tuple[Verdict, str]


class Finding(NamedTuple):
    """Findings about one connection.

    :ivar is_silent_by_fault: it should bring something, pongs at least, and nothing on our side keeps it.
    :ivar away_seconds: for how long each of its subscriptions that has lost its connection has been without.
    :ivar starting_seconds: likewise of those that were never live.
    """

    status: ConnectionStatus
    is_silent_by_fault: bool
    away_seconds: Sequence[float]
    starting_seconds: Sequence[float]


class Findings(NamedTuple):
    """Findings about a client.

    :ivar waiting: of each subscription whose consumer takes nothing: for how long, label, id, and whether its
        stream is stopped.
    """

    connections: Sequence[Finding]
    waiting: Sequence[tuple[float, str, str, bool]]
    transports: TransportCounts
    uses_websocket: bool
    buffered_bytes: int
    max_buffered_bytes: int


def judge(findings: Findings, limits: HealthLimits) -> tuple[Verdict, tuple[str, ...]]:
    """Return the verdict and its reasons, those of ``failing`` first."""
    found = [
        *(each for connection in findings.connections for each in _of_connection(connection, limits)),
        *_of_consumers(findings.waiting),
        *_of_transports(findings),
        *_of_memory(findings, limits),
    ]
    if findings.connections and all(c.status.state == ConnectionState.CLOSED for c in findings.connections):
        found = [(Verdict.FAILING, "the client is closed")]
    # Connections of a pool share their URLs: each reason is said once.
    failing = dict.fromkeys(text for verdict, text in found if verdict is Verdict.FAILING)
    degraded = dict.fromkeys(text for verdict, text in found if verdict is Verdict.DEGRADED)
    verdict = Verdict.FAILING if failing else Verdict.DEGRADED if degraded else Verdict.OK
    return verdict, (*failing, *(text for text in degraded if text not in failing))


def _of_connection(found: Finding, limits: HealthLimits) -> Iterator[_Reason]:
    status = found.status
    late = [seconds for seconds in found.starting_seconds if seconds >= limits.away_seconds]
    away = [*found.away_seconds, *late]
    is_lost = bool(away) and status.state != ConnectionState.CONNECTED
    for breaker in status.circuit_breakers:
        if breaker.state == BreakerState.OPEN:
            verdict = Verdict.FAILING if is_lost else Verdict.DEGRADED
            yield verdict, f"the circuit breaker of {breaker.url} is open"
    if away:
        longest = max(away)
        have = "1 subscription has" if len(away) == 1 else f"{len(away)} subscriptions have"
        verdict = Verdict.FAILING if longest >= limits.away_seconds else Verdict.DEGRADED
        yield verdict, f"{have} waited for {status.url} for {_seconds(longest)}"
    silence, round_trip = status.seconds_since_frame, status.round_trip_seconds
    if found.is_silent_by_fault and silence is not None and silence >= limits.silence_seconds:
        yield Verdict.FAILING, f"no sign of life from {status.url} for {_seconds(silence)}"
    elif round_trip is not None and round_trip >= limits.round_trip_seconds:
        yield Verdict.DEGRADED, f"{status.url} takes {_seconds(round_trip)} to answer a ping"


def _of_consumers(waiting: Sequence[tuple[float, str, str, bool]]) -> Iterator[_Reason]:
    """Tell of streams whose consumer takes nothing: a stopped one brings nothing, others still do."""
    for is_stopped, verdict in ((True, Verdict.FAILING), (False, Verdict.DEGRADED)):
        those = sorted((each for each in waiting if each[3] is is_stopped), reverse=True)
        for seconds, label, id_, _ in those[:_TOLD]:
            yield verdict, f"{label} ({id_}) has waited for its consumer for {_seconds(seconds)}"
        if more := those[_TOLD:]:
            yield verdict, f"{len(more)} more {'waits' if len(more) == 1 else 'wait'} for their consumers"


def _of_transports(findings: Findings) -> Iterator[_Reason]:
    counts = findings.transports
    ways = ((counts.sse, "server-sent events"), (counts.poll, "polling")) if findings.uses_websocket else ()
    for count, way in (*ways, (counts.query, "queries at an interval")):
        if count:
            come = "1 subscription comes" if count == 1 else f"{count} subscriptions come"
            yield Verdict.DEGRADED, f"{come} by {way}"


def _of_memory(findings: Findings, limits: HealthLimits) -> Iterator[_Reason]:
    held, most = findings.buffered_bytes, findings.max_buffered_bytes
    if held >= limits.buffered_share * most:
        yield Verdict.DEGRADED, f"buffers hold {held} of {most} bytes"


def _seconds(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds >= 1 else f"{seconds * 1000:.0f} ms"
