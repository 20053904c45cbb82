"""Log and audit the lives of subscriptions: begun, resumed, refused, ended.

Lines of the log are at ``info``, and each kind has at most 1,000 a second: a server that thousands of
subscriptions come back to after a restart would write little else. Those of polls are at ``debug``, as each
poll begins its subscriptions anew. No line is written for an event.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from circuit_breaker_server import logs
from circuit_breaker_server.access.audit_lines import NO_AUDIT
from circuit_breaker_server.bounded_log import BoundedLogger
from circuit_breaker_server.gateway.subscriber import Subscriber
from circuit_breaker_server.gateway.subscription_plan import Plan, Refused

if TYPE_CHECKING:
    from circuit_breaker_server.gateway.feed import Feed

__all__ = ["note_begin", "note_end", "note_refusal"]

_LINES_PER_SECOND: Final = 1_000

logger = BoundedLogger("subscriptions", lines_per_second=_LINES_PER_SECOND)


def note_begin(feed: Feed, subscriber: Subscriber[Feed], plan: Plan, *, after: str | None) -> None:
    """Log and audit a subscription that was accepted.

    :param after: the cursor after which it goes on.
    """
    audit = feed.caller.audit
    audit.note(
        feed.caller,
        _action(after),
        audit.named(plan.field, plan.arguments),
        "allowed",
        first_cursor=subscriber.cursor,
    )
    caller, field = feed.caller, subscriber.channel.stream
    if not feed.is_lasting:
        logger.debug("polled", address=caller.address, principal=caller.id, field=field)
    elif after is not None:
        logger.info("resumed", address=caller.address, principal=caller.id, field=field)
    else:
        logger.info("subscribed", address=caller.address, principal=caller.id, field=field)


def note_refusal(feed: Feed, plan: Plan, refused: Refused, *, after: str | None) -> None:
    """Count, log and audit a subscription that was refused.

    :param after: the cursor after which it was to go on.
    """
    code = (refused.errors[0].extensions or {}).get("code")
    feed.hub.instruments.refusals.note(
        "invalid",
        "subscription",
        remote=feed.caller.address,
        principal=feed.caller.id,
        field=plan.field,
        code=str(code),
    )
    audit = feed.caller.audit
    audit.note(
        feed.caller,
        _action(after),
        audit.named(plan.field, plan.arguments),
        "refused",
        reason=str(code),
        first_cursor=after,
    )


def note_end(feed: Feed, subscriber: Subscriber[Feed]) -> None:
    """Log and audit a subscription that has left its channel."""
    if feed.is_lasting and logs.is_enabled("info"):
        logger.info(
            "ended",
            address=feed.caller.address,
            principal=feed.caller.id,
            field=subscriber.channel.stream,
            events=subscriber.delivered,
            denied=subscriber.denied,
        )
    caller, plan = feed.caller, subscriber.channel.plan
    if caller.audit is not NO_AUDIT:
        caller.audit.note(
            caller,
            "end",
            caller.audit.named(plan.field, plan.arguments),
            "ended",
            last_cursor=subscriber.cursor,
            count=subscriber.denied,
        )


def _action(after: str | None) -> str:
    return "subscribe" if after is None else "resume"
