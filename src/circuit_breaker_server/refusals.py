"""Every refusal of the server in one place: it is counted by its reason, and has one line in the log."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final, Literal, TypeAlias, final, get_args

from circuit_breaker_sdk.protocol.close_codes import CloseCode
from circuit_breaker_server.bounded_log import BoundedLogger

__all__ = [
    "REFUSALS",
    "Refusal",
    "RefusalKind",
    "Refusals",
    "reason_of_close",
    "reason_of_status",
]

Refusal: TypeAlias = Literal[
    "conflict",
    "connections",
    "draining",
    "expired",
    "failed",
    "host",
    "invalid",
    "malformed",
    "method",
    "not_found",
    "not_ready",
    "origin",
    "principal",
    "rate",
    "revoked",
    "subprotocol",
    "timeout",
    "tls",
    "too_large",
    "unauthenticated",
]
"""Why a request, an operation or a connection was refused."""

REFUSALS: Final[tuple[Refusal, ...]] = get_args(Refusal)

RefusalKind: TypeAlias = Literal[
    "connection", "handshake", "operation", "request", "subscription", "upgrade", "websocket"
]
"""The thing that was refused."""

_LINES_PER_SECOND: Final = 10
"""Of one reason: enough to see what happens, and some 2 kB a second."""

_OF_STATUS: Final[Mapping[int, Refusal]] = {
    401: "unauthenticated",
    403: "origin",
    404: "not_found",
    405: "method",
    408: "timeout",
    409: "conflict",
    413: "too_large",
    414: "too_large",
    421: "host",
    422: "conflict",
    429: "rate",
    431: "too_large",
    503: "draining",
}
_OF_CLOSE: Final[Mapping[int, Refusal]] = {
    CloseCode.FORBIDDEN: "unauthenticated",
    CloseCode.SUBPROTOCOL_NOT_ACCEPTABLE: "subprotocol",
    CloseCode.INIT_TIMEOUT: "timeout",
    CloseCode.SUBSCRIBER_EXISTS: "conflict",
    CloseCode.TRY_AGAIN_LATER: "draining",
}


def reason_of_status(status: int) -> Refusal:
    """Return why a request is refused with an HTTP status, where the refusal itself does not say it."""
    return _OF_STATUS.get(status, "failed" if status >= 500 else "malformed")


def reason_of_close(code: int) -> Refusal | None:
    """Return why a WebSocket is closed with a code of ours; ``None``: that close refuses nothing."""
    if 4400 <= code < 4500 or code == CloseCode.TRY_AGAIN_LATER:
        return _OF_CLOSE.get(code, "malformed")
    return None


@final
class Refusals:
    """Counts and logs what the server refuses, of each reason at most ten lines in a second.

    :param clock: monotonic, in seconds.

    Example::

        refusals = Refusals()
        refusals.note("rate", "request", remote="192.0.2.7", status=429)
        refusals.counts["rate"]
    """

    __slots__ = ("_counts", "_log", "counts")

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._counts: dict[Refusal, int] = dict.fromkeys(REFUSALS, 0)
        self.counts: Mapping[Refusal, int] = MappingProxyType(self._counts)
        """The number of refusals by their reason. To add to it, call :meth:`note`."""
        self._log = BoundedLogger("refusals", lines_per_second=_LINES_PER_SECOND, clock=clock)

    def note(self, reason: Refusal, kind: RefusalKind, *, remote: str, **facts: object) -> None:
        """Count a refusal, and log it.

        :param remote: the peer's address, empty where it is not known.
        :param facts: codes, statuses and names of the server's own; never what a client wrote.
        """
        self._counts[reason] += 1
        self._log.info("refused", key=reason, kind=kind, reason=reason, remote=remote, **facts)

    def close(self) -> None:
        """Write how many lines were left out."""
        self._log.flush()
