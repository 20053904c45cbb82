"""Limit the audit lines of one principal or address in a window, and count what exceeds the limit.

A caller chooses how often it is refused. Without a limit its lines fill the disk, and the memory in which the
lines of other callers wait for the disk.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final, NamedTuple, final

from circuit_breaker_server.security.audit.records import AuditEvent, summary_members

__all__ = ["AuditLimits", "Summaries", "Summary"]

_MAX_KINDS: Final = 16
"""Different actions and reasons that are counted separately for one source."""

_MAX_REASON: Final = 64


@final
@dataclass(frozen=True, slots=True)
class AuditLimits:
    """Limit the audit lines of one window; the events above a limit are only counted.

    :ivar refusals: of one principal, or of one address where the principal is not known.
    :ivar others: likewise, of events that were allowed or ended.
    :ivar strangers: refusals without a principal, of all addresses together.
    :ivar window_seconds: the length of a window; windows follow each other.
    :ivar sources: principals, and likewise addresses, that are told apart in one window. Further ones share
        the lines of one, and their summary names none of them.

    Example::

        AuditLimits(refusals=10, window_seconds=60)
    """

    refusals: int = 50
    others: int = 500
    strangers: int = 1_000
    window_seconds: float = 10.0
    sources: int = 4_096


class Summary(NamedTuple):
    """The line about what was counted in a window.

    :ivar members: of the line.
    :ivar events: how many events it is about.
    """

    members: bytes
    events: int


class _Source(NamedTuple):
    """A principal or an address with a limit of its lines; the name is ``None`` beyond the table's bound."""

    is_principal: bool
    name: str | None
    is_refused: bool


@final
@dataclass(slots=True)
class _Window:
    tenant: str | None
    address: str
    listed: int = 0
    counts: dict[str, int] = field(default_factory=dict)

    def count(self, event: AuditEvent) -> None:
        reason = "" if event.reason is None else f" {event.reason[:_MAX_REASON]}"
        kind = f"{event.action} {event.decision}{reason}"
        if kind not in self.counts and len(self.counts) >= _MAX_KINDS:
            kind = "other"
        self.counts[kind] = self.counts.get(kind, 0) + 1
        if event.address != self.address:
            self.address = ""  # of several


@final
class Summaries:
    """Tell which events get a line of their own, and count the others for one line per source and window.

    Not thread-safe: the log calls it under its lock.

    :param monotonic: seconds of a clock that is never set.

    Example::

        summaries = Summaries(AuditLimits())
        if summaries.lists(event): ...
        if summaries.due: lines = [*summaries.take()]
    """

    def __init__(self, limits: AuditLimits, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._limits = limits
        self._monotonic = monotonic
        self._began = monotonic()
        self._windows: dict[_Source, _Window] = {}
        self._sources = {True: 0, False: 0}
        self._strangers = 0
        self._counting = False

    @property
    def due(self) -> bool:
        """Whether the window has ended."""
        return self._monotonic() - self._began >= self._limits.window_seconds

    @property
    def seconds_left(self) -> float | None:
        """The time until a summary is due; ``None`` where nothing was counted."""
        if not self._counting:
            return None
        return max(0.0, self._began + self._limits.window_seconds - self._monotonic())

    @property
    def sources(self) -> int:
        """The number of entries in the table."""
        return len(self._windows)

    def lists(self, event: AuditEvent) -> bool:
        """Tell whether an event gets a line; count it if not. What is of no caller always gets one."""
        if not event.principal and not event.address:
            return True
        is_refused = event.decision == "refused"
        window = self._window(event, is_refused=is_refused)
        is_stranger = is_refused and not event.principal
        limit = self._limits.refusals if is_refused else self._limits.others
        if window.listed < limit and not (is_stranger and self._strangers >= self._limits.strangers):
            window.listed += 1
            self._strangers += is_stranger
            return True
        window.count(event)
        self._counting = True
        return False

    def take(self) -> Iterator[Summary]:
        """End the window: return a line for each source of which something was counted."""
        windows, self._windows = self._windows, {}
        self._sources = {True: 0, False: 0}
        self._strangers, self._counting = 0, False
        self._began = self._monotonic()
        for source, window in windows.items():
            if window.counts:
                count = sum(window.counts.values())
                members = summary_members(
                    principal=(source.name or "") if source.is_principal else "",
                    tenant=window.tenant if source.name else None,
                    address=window.address if source.name else "",
                    what=", ".join(f"{kind}: {times}" for kind, times in window.counts.items()),
                    decision="refused" if source.is_refused else "allowed",
                    count=count,
                )
                yield Summary(members, count)

    def _window(self, event: AuditEvent, *, is_refused: bool) -> _Window:
        is_principal = bool(event.principal)
        source = _Source(is_principal, event.principal or event.address, is_refused)
        window = self._windows.get(source)
        if window is None:
            if self._sources[is_principal] >= self._limits.sources:
                source = _Source(is_principal, None, is_refused)
                window = self._windows.get(source)
            else:
                self._sources[is_principal] += 1
        if window is None:
            window = self._windows[source] = _Window(event.tenant, event.address)
        return window
