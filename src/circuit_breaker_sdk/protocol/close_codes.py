"""WebSocket close codes, and which of them mean that connecting again can help.

The registered codes are those of RFC 6455, section 7.4; the 44xx and 45xx ones belong to
``graphql-transport-ws``.
"""

from __future__ import annotations

import enum
import re
from typing import Final

__all__ = [
    "GOES_AWAY",
    "MAX_REASON_BYTES",
    "CloseCode",
    "asked_to_return",
    "asking_to_return",
    "close_reason",
    "is_retryable",
    "is_sendable",
]

MAX_REASON_BYTES: Final = 123
"""A close frame carries at most 125 bytes (RFC 6455, section 5.5); two of them are the code."""


class CloseCode(enum.IntEnum):
    """Why a connection was closed."""

    NORMAL = 1000
    GOING_AWAY = 1001
    PROTOCOL_ERROR = 1002
    UNSUPPORTED_DATA = 1003
    NO_STATUS = 1005
    """The close frame had no code. Never sent."""
    ABNORMAL = 1006
    """The connection ended without a close frame. Never sent."""
    INVALID_TEXT = 1007
    POLICY = 1008
    MESSAGE_TOO_BIG = 1009
    INTERNAL = 1011
    SERVICE_RESTART = 1012
    TRY_AGAIN_LATER = 1013
    BAD_GATEWAY = 1014
    BAD_RESPONSE = 4004
    """Sent by a JavaScript client of the reference library after an invalid message of the server."""
    CLIENT_INTERNAL_ERROR = 4005
    BAD_REQUEST = 4400
    UNAUTHORIZED = 4401
    """``subscribe`` before ``connection_ack``; it says nothing about credentials (that is 4403)."""
    FORBIDDEN = 4403
    SUBPROTOCOL_NOT_ACCEPTABLE = 4406
    INIT_TIMEOUT = 4408
    SUBSCRIBER_EXISTS = 4409
    TOO_MANY_INIT = 4429
    INTERNAL_SERVER_ERROR = 4500
    ACK_TIMEOUT = 4504


# Below 3000 only what is named here is worth another attempt: the other codes say that one of the peers
# breaks the protocol, and it would break it again.
_RETRYABLE: Final = frozenset({1000, 1001, 1005, 1006, 1011, 1012, 1013, 1014})

# From 3000 on the meaning is the application's, so a code nobody knows is retried (with backoff), as
# clients in other languages do. 3000 and 3003 are registered as Unauthorized and Forbidden. 4403 is here
# because only a caller that holds a fresh token may try again.
_FATAL: Final = frozenset({3000, 3003, 4004, 4005, 4400, 4401, 4403, 4406, 4409, 4429})

GOES_AWAY: Final = frozenset({CloseCode.GOING_AWAY, CloseCode.SERVICE_RESTART})
"""A server says that it stops: it, or another one, is expected to serve soon."""

_RETRY_AFTER: Final = re.compile(r"\bretry-after=([0-9]{1,6}(?:\.[0-9]{1,3})?)(?![\w.])")

_NEVER_SENT: Final = frozenset({1004, 1005, 1006})


def is_retryable(code: int) -> bool:
    """Tell whether a new connection may succeed after this close code.

    4403 answers ``False``: the owner of the tokens decides about one more attempt. 1000 answers
    ``True``: the question is asked only while subscriptions are live. Retries always need backoff.
    """
    return code in _RETRYABLE or (3000 <= code <= 4999 and code not in _FATAL)


def is_sendable(code: int) -> bool:
    """Tell whether a close frame may carry this code (RFC 6455, section 7.4)."""
    return 3000 <= code <= 4999 or (1000 <= code <= 1014 and code not in _NEVER_SENT)


def asking_to_return(text: str, seconds: float) -> str:
    """Return a close reason that asks the client to come back after some seconds, and not before."""
    return f"{text}; retry-after={seconds:.1f}"


def asked_to_return(reason: str) -> float | None:
    """Return the seconds after which a close reason asks to come back, ``None`` where it asks for nothing."""
    found = _RETRY_AFTER.search(reason)
    return None if found is None else float(found[1])


def close_reason(text: str) -> bytes:
    """Encode a close reason: UTF-8, cut at a character boundary to at most 123 bytes.

    Surrogates that have no UTF-8 form become ``?``: a close must never fail over its own text.
    """
    encoded = text.encode("utf-8", "replace")
    if len(encoded) <= MAX_REASON_BYTES:
        return encoded
    # Only the last character can be cut in two, and its head is what "ignore" drops.
    return encoded[:MAX_REASON_BYTES].decode("utf-8", "ignore").encode()
