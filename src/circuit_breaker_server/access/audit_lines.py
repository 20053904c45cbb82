"""Write the actions of callers to the audit log: names and decisions, never tokens, never payloads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal, Protocol, final

from circuit_breaker_server.security.audit import AuditEvent

__all__ = ["NO_AUDIT", "Auditor", "Who"]

_MAX_SHOWN: Final = 128


class Sink(Protocol):
    """A destination of audit events, such as the audit log."""

    def append(self, event: AuditEvent) -> None: ...


class Who(Protocol):
    """The attributes of a caller that an audit line holds."""

    @property
    def id(self) -> str: ...

    @property
    def address(self) -> str: ...

    @property
    def tenant(self) -> str | None: ...

    @property
    def policy(self) -> str | None: ...


@final
class Auditor:
    """Write audit events, if there is an audit log.

    Example::

        auditor = Auditor(await AuditLog.open(paths))
        auditor.note(caller, "connect", "websocket", "allowed")
    """

    __slots__ = ("_sink",)

    def __init__(self, sink: Sink | None = None) -> None:
        self._sink = sink

    def note(
        self,
        who: Who,
        action: str,
        what: str,
        decision: Literal["allowed", "refused", "ended"],
        *,
        reason: str | None = None,
        first_cursor: str | None = None,
        last_cursor: str | None = None,
        count: int | None = None,
    ) -> None:
        """Write an action of a caller, allowed or refused: see :class:`AuditEvent`."""
        if self._sink is not None:
            event = AuditEvent(
                action=action,
                principal=who.id,
                tenant=who.tenant,
                address=who.address,
                what=what,
                decision=decision,
                reason=reason,
                policy=who.policy,
                first_cursor=first_cursor,
                last_cursor=last_cursor,
                count=count,
            )
            self._sink.append(event)

    def refused(self, address: str, what: str, reason: str) -> None:
        """Write that a client was not authenticated; its principal is not known."""
        self._say("refuse", address, what, "refused", reason=reason)

    def changed(self, policy: str) -> None:
        """Write that another policy has come into force."""
        self._say("policy", "", "policy", "allowed", policy=policy)

    def _say(
        self,
        action: str,
        address: str,
        what: str,
        decision: Literal["allowed", "refused"],
        *,
        reason: str | None = None,
        policy: str | None = None,
    ) -> None:
        """Write an event that has no principal."""
        if self._sink is not None:
            event = AuditEvent(
                action=action,
                principal="",
                address=address,
                what=what,
                decision=decision,
                reason=reason,
                policy=policy,
            )
            self._sink.append(event)

    def named(self, field: str, arguments: Mapping[str, object]) -> str:
        """Format a stream with its arguments, which are names only; empty without an audit log."""
        if self._sink is None:
            return ""
        given = (
            f"{name}: {str(value)[:_MAX_SHOWN]}" for name, value in arguments.items() if value is not None
        )
        return f"{field}({', '.join(given)})"


NO_AUDIT: Final = Auditor()
