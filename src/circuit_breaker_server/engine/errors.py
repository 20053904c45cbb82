"""The error of a refused command, query or subscription, with a code that clients may act on."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import final

__all__ = ["EngineError", "ErrorCode", "shown"]

_SHOWN = 80


class ErrorCode(enum.StrEnum):
    """``extensions.code`` of a refused operation."""

    NOT_FOUND = "NOT_FOUND"
    """An id names nothing."""
    INVALID_INPUT = "INVALID_INPUT"
    """An input contradicts itself or the workflow, or asks for what this server does not do."""
    CONFLICT = "CONFLICT"
    """Someone else changed the same thing first: reading again and trying again may help. Or the thing is
    still in use: ``facts`` say by what."""
    ACTIVITY_NOT_ALLOWED = "ACTIVITY_NOT_ALLOWED"
    """The resource's state, or a condition, does not allow the activity now."""
    PROVIDER_FAILED = "PROVIDER_FAILED"
    """A provider of language models, or an MCP server, failed; ``kind`` says how."""
    BUDGET_EXHAUSTED = "BUDGET_EXHAUSTED"
    """The account to be charged has used up its budget, and budgets are enforced; ``budgetId`` names it."""
    RATE_LIMITED = "RATE_LIMITED"
    """Too many requests; ``retryAfter`` says in how many seconds to try again, if it is known."""
    FORBIDDEN = "FORBIDDEN"
    """The caller's rights do not allow it."""
    AUTHENTICATION_FAILED = "AUTHENTICATION_FAILED"
    """A sign-in to an MCP server was refused."""
    UNAVAILABLE = "UNAVAILABLE"
    """The event log could not be written. Reading and streams go on. Nothing was changed, unless
    ``mayHaveHappened`` is true: then read before trying again, or try again with the same idempotency key."""


@final
class EngineError(Exception):
    """A command, a query or a subscription was refused; nothing was changed.

    The one exception is an error with :attr:`may_have_happened`.

    :ivar code: what kind of refusal it is.
    :ivar message: what happened, to what, and what to do.
    :ivar facts: more for ``extensions``, for programs; JSON values.

    Example::

        raise EngineError(ErrorCode.NOT_FOUND, "there is no workflow 'w1'", workflowId="w1")
    """

    def __init__(self, code: ErrorCode, message: str, **facts: object) -> None:
        self.code = code
        self.message = message
        self.facts: Mapping[str, object] = facts
        super().__init__(code, message)

    @property
    def may_have_happened(self) -> bool:
        """Whether the change may be in the log all the same, or come to be in it."""
        return self.facts.get("mayHaveHappened") is True

    @property
    def extensions(self) -> dict[str, object]:
        """The ``extensions`` of the GraphQL error: the code, then the facts."""
        return {"code": self.code.value, **self.facts}

    def __str__(self) -> str:
        return self.message


def shown(text: str) -> str:
    """Quote a caller's text for a message, cut to a bearable length."""
    return repr(text if len(text) <= _SHOWN else text[:_SHOWN] + "…")
