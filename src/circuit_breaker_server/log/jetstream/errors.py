"""Errors between the files of this package."""

from __future__ import annotations

from typing import Final

__all__ = [
    "BATCH_REFUSED",
    "DUPLICATE_IN_BATCH",
    "DUPLICATE_IN_FLIGHT",
    "NOT_FOUND",
    "STREAM_EXISTS",
    "WRONG_SEQUENCE",
    "ApiError",
    "BrokerUnavailable",
]

NOT_FOUND: Final = 404
STREAM_EXISTS: Final = 10058
DUPLICATE_IN_BATCH: Final = 10201
DUPLICATE_IN_FLIGHT: Final = 10158
# The batch is not complete, batches are not allowed, or too many are open: nothing of it was stored.
BATCH_REFUSED: Final = frozenset({10174, 10175, 10176, 10177, 10178, 10179, 10199, 10210, 10211})
# 10071 names the last sequence or none; 10164 is a second expectation for a subject in the same batch.
WRONG_SEQUENCE: Final = frozenset({10071, 10164})
# A server of the cluster is not up yet, or the cluster has fewer servers than the stream needs.
_NO_PEERS: Final = 10005


class BrokerUnavailable(Exception):
    """No answer: not connected, the connection was lost, no leader, or the time is up.

    :ivar was_sent: the request may have reached the broker and may still take effect.
    """

    def __init__(self, reason: str, *, was_sent: bool) -> None:
        super().__init__(reason)
        self.was_sent = was_sent


class ApiError(Exception):
    """JetStream refused a request; nothing was changed.

    :ivar code: as HTTP's, 404 and so on.
    :ivar error_code: JetStream's own number, 10071 and so on.
    """

    def __init__(self, code: int, error_code: int, description: str) -> None:
        super().__init__(code, error_code, description)
        self.code = code
        self.error_code = error_code
        self.description = description

    def __str__(self) -> str:
        return f"{self.description} ({self.error_code or self.code})"

    @property
    def is_temporary(self) -> bool:
        """Whether the same request may succeed a moment later: no leader, no quorum, servers starting."""
        return self.code == 503 or self.error_code == _NO_PEERS
