"""Word the GraphQL errors with which subscriptions are refused or ended."""

from __future__ import annotations

from circuit_breaker_sdk.errors import GraphQLError
from circuit_breaker_server.engine.errors import EngineError, ErrorCode
from circuit_breaker_server.engine.events import Finite
from circuit_breaker_server.gateway.resume_gaps import GapReason
from circuit_breaker_server.gateway.subscription_plan import Plan

__all__ = ["gap_error", "internal_error", "missing_error", "refusal_error"]


def gap_error(reason: GapReason) -> GraphQLError:
    """Word the error of a cursor that cannot be resumed from (docs/resume.md, 6)."""
    return GraphQLError(
        message=f"cannot resume after this cursor ({reason}): query the present state, then subscribe anew",
        extensions={"code": "RESUME_GAP", "reason": reason.value},
    )


def internal_error() -> GraphQLError:
    """Word an error whose cause only the log tells."""
    return GraphQLError(message="internal error", extensions={"code": "INTERNAL"})


def missing_error(plan: Plan, finite: Finite) -> GraphQLError:
    """Word the error of a finite stream that does not exist, or that the caller may not see."""
    return GraphQLError(
        message=finite.missing, path=(plan.field,), extensions={"code": ErrorCode.NOT_FOUND.value}
    )


def refusal_error(plan: Plan, error: EngineError) -> GraphQLError:
    """Word the error of arguments that the engine refuses."""
    return GraphQLError(message=error.message, path=(plan.field,), extensions=error.extensions)
