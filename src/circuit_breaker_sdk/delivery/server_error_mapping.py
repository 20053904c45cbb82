"""Map a server's ``error`` message to the error that ends the subscription."""

from __future__ import annotations

from collections.abc import Sequence

from circuit_breaker_sdk.errors import (
    GapError,
    GraphQLError,
    RateLimitExceeded,
    StreamFailure,
    SubscriptionFailed,
    joined,
)

__all__ = ["server_error"]

_MAX_REASON = 100


def server_error(id: str, errors: Sequence[GraphQLError]) -> StreamFailure:  # noqa: A002 (the protocol's own word)
    """Return the error that the first of them names by its code; a refusal, where it names none we know."""
    first = errors[0] if errors else None
    extensions = (first.extensions if first is not None else None) or {}
    if first is not None and first.code == "RESUME_GAP":
        return GapError(id, str(extensions.get("reason", "unknown"))[:_MAX_REASON])
    if first is not None and first.code == "RATE_LIMITED":
        wait = extensions.get("retryAfterSeconds", extensions.get("retryAfter"))
        return RateLimitExceeded(float(wait) if isinstance(wait, int | float) else None)
    reason = joined(errors) or "the server gave no reason"
    return SubscriptionFailed(id, reason, errors=errors)
