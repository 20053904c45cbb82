"""Map the end of a connection to the errors of its operations."""

from __future__ import annotations

from circuit_breaker_sdk.errors import (
    AuthenticationFailed,
    ConnectionFailed,
    ProtocolError,
    TransportError,
)
from circuit_breaker_sdk.protocol.close_codes import CloseCode, asked_to_return, is_retryable

__all__ = ["REFUSES_AN_OPERATION", "broken_error", "close_error"]

# 4401 means "subscribe before the ack", which this client never sends: a server that says it to us means
# credentials. 3000 and 3003 are the registered codes for the same two refusals.
_REFUSED_CREDENTIALS = frozenset({CloseCode.UNAUTHORIZED, CloseCode.FORBIDDEN, 3000, 3003})

REFUSES_AN_OPERATION = frozenset(
    {CloseCode.BAD_REQUEST, CloseCode.INTERNAL_SERVER_ERROR, CloseCode.INTERNAL, CloseCode.PROTOCOL_ERROR}
)
"""Close codes for one bad document: graphql-ws on Node uses 4500, Strawberry 4400, others 1011 and 1002."""


def close_error(url: str, code: int, reason: str) -> TransportError:
    """Return what is told to the subscriptions on a connection that was closed with this code."""
    if code in _REFUSED_CREDENTIALS:
        return AuthenticationFailed(
            f"{url}: the server refused the credentials: {reason or 'no reason given'} (close code {code}). "
            "Check the token and the connection parameters."
        )
    if is_retryable(code):
        return ConnectionFailed(
            f"the connection was closed: {reason or 'no reason given'}",
            url=url,
            close_code=code,
            retry_after=asked_to_return(reason),
        )
    advice = ""
    if code == CloseCode.MESSAGE_TOO_BIG:
        advice = (
            ". A message to the server was too long for it (its variables, its document), or one from it is "
            "longer than MessageLimits allow"
        )
    return ProtocolError(f"{url}: {reason or 'no reason given'}{advice}", close_code=code)


def broken_error(url: str, code: int, reason: str) -> TransportError:
    """Return what is told where we close, with this code, because of what the server has sent."""
    if code == CloseCode.FORBIDDEN:  # the `connection_error` of the legacy protocol
        return AuthenticationFailed(
            f"{url}: the server refused the connection: {reason or 'no reason given'} (connection_error). "
            "Check the token and the connection parameters."
        )
    return ProtocolError(reason, close_code=code)
