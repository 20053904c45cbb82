"""Describe failures below GraphQL (name look-up, TCP, TLS, HTTP status) in words a user can act on."""

from __future__ import annotations

import errno
import socket
import ssl
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from urllib.parse import urljoin

from circuit_breaker_sdk.errors import (
    AuthenticationFailed,
    ConnectionFailed,
    HandshakeFailed,
    RateLimitExceeded,
    TransportError,
)
from circuit_breaker_sdk.urls import redacted

__all__ = ["explain_os_error", "refusal", "retry_after_seconds"]


def explain_os_error(error: OSError, *, host: str, secure: bool) -> str:
    """Say what an error of the socket or of TLS means, and what to do about it."""
    if isinstance(error, socket.gaierror):
        return f"the host name {host!r} is not known ({error.strerror}): check the URL and the network"
    if isinstance(error, ssl.SSLCertVerificationError):
        return (
            f"the server's certificate was refused ({_detail(error, 'verify_message')}): connect with a name "
            "that is in the certificate, or give an ssl.SSLContext that trusts its authority"
        )
    if isinstance(error, ssl.SSLError):
        return (
            f"no TLS connection ({_detail(error, 'reason')}): if the server does not speak TLS at this port, "
            "use ws:// or http://"
        )
    if isinstance(error, ConnectionRefusedError) or error.errno == errno.ECONNREFUSED:
        return "the connection was refused: is the server running, and is the port right?"
    if isinstance(error, ConnectionError):
        does, schemes = ("does not speak", "ws:// or http://") if secure else ("speaks", "wss:// or https://")
        return (
            "the peer closed the connection before it was established; if the server "
            f"{does} TLS at this port, use {schemes}"
        )
    return f"cannot connect: {error.strerror or error}"


def _detail(error: ssl.SSLError, attribute: str) -> str:
    # OpenSSL's errors have these attributes, the ones made in Python do not.
    return str(getattr(error, attribute, None) or error)


def refusal(status: int, headers: Mapping[str, str], *, url: str, purpose: str) -> TransportError:
    """Return the error an HTTP status means, where it ends an attempt.

    :param headers: of the answer, names in any case if the mapping ignores case, else in lower case.
    :param url: where to, already without credentials.
    :param purpose: what was not done, for example ``"accept WebSocket upgrades"``.
    """
    if status in {401, 403}:
        return AuthenticationFailed(
            f"{url}: the server refused the credentials (HTTP {status}): check the token or the headers"
        )
    if status == 429:
        return RateLimitExceeded(retry_after_seconds(headers.get("retry-after")))
    if 300 <= status < 400:
        location = headers.get("location")
        where = f" to {redacted(urljoin(url, location))}" if location else ""
        return HandshakeFailed(
            f"the server redirects{where} (HTTP {status}); redirects are not followed, because they would "
            "take the credentials along: connect there directly",
            url=url,
            status=status,
        )
    if status in {408, 425, 500, 502, 503, 504} or status >= 520:
        return ConnectionFailed(f"the server is not able to answer now (HTTP {status})", url=url)
    return HandshakeFailed(
        f"the server does not {purpose} at this path (HTTP {status}): check the path of the URL",
        url=url,
        status=status,
    )


def retry_after_seconds(value: str | None) -> float | None:
    """Return ``Retry-After`` in seconds from now, ``None`` where it is missing or unreadable (RFC 9110)."""
    if value is None:
        return None
    text = value.strip()
    if text.isascii() and text.isdigit():
        return float(text[:9])
    try:
        moment = parsedate_to_datetime(text)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max(0.0, (moment - datetime.now(UTC)).total_seconds())
