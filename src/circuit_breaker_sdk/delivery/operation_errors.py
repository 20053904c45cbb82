"""Errors inside the results of one subscription: counted, and remembered where one may be its end."""

from __future__ import annotations

from typing import final

from circuit_breaker_sdk.errors import GraphQLError

__all__ = ["OperationErrors"]


@final
class OperationErrors:
    """Count the results with errors of one subscription.

    :ivar count: results with errors.
    :ivar without_value: those of them that had no value: they are no events.
    :ivar failure: the errors of the latest result without a value.
    :ivar failed_at: the number of results when it came. ``complete`` right behind it means failure: some
        servers have no ``error`` message for a stream that fails.
    """

    __slots__ = ("count", "failed_at", "failure", "without_value")

    def __init__(self) -> None:
        self.count: int = 0
        self.without_value: int = 0
        self.failure: tuple[GraphQLError, ...] = ()
        self.failed_at: int = 0

    def note(self, errors: tuple[GraphQLError, ...], *, received: int, is_whole: bool) -> None:
        """Count a result with errors; ``is_whole``: it has no value."""
        self.count += 1
        self.without_value += is_whole
        self.failure, self.failed_at = (errors, received) if is_whole else ((), 0)
