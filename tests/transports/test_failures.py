"""Errors below GraphQL, in words."""

from __future__ import annotations

import errno
import socket
import ssl
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from circuit_breaker_sdk.transports.error_texts import explain_os_error, refusal, retry_after_seconds


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (socket.gaierror(-2, "Name or service not known"), "'db' is not known"),
        (ConnectionRefusedError(errno.ECONNREFUSED, "refused"), "is the server running"),
        (OSError(errno.ECONNREFUSED, "Connect call failed"), "is the server running"),
        (ConnectionResetError(), "closed the connection before"),
        (OSError(errno.EHOSTUNREACH, "No route to host"), "cannot connect: No route to host"),
        (OSError("Multiple exceptions: a, b"), "Multiple exceptions"),
        (TimeoutError(errno.ETIMEDOUT, "Connection timed out"), "cannot connect: Connection timed out"),
        (ssl.SSLError("odd"), "no TLS connection"),
    ],
)
def test_an_error_of_the_socket_says_what_it_means(error: OSError, told: str) -> None:
    assert told in explain_os_error(error, host="db", secure=False)


def test_only_a_secure_connection_is_advised_to_try_without_tls() -> None:
    assert "ws://" in explain_os_error(ConnectionResetError(), host="db", secure=True)
    assert "ws://" not in explain_os_error(ConnectionResetError(), host="db", secure=False)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None),
        ("120", 120.0),
        (" 0 ", 0.0),
        ("-1", None),
        ("soon", None),
        ("1.5", None),
        ("", None),
        ("²", None),
    ],
)
def test_retry_after_in_seconds_is_read_and_nonsense_is_none(
    value: str | None, seconds: float | None
) -> None:
    assert retry_after_seconds(value) == seconds


def test_retry_after_as_a_date_is_seconds_from_now_and_never_negative() -> None:
    soon = retry_after_seconds(format_datetime(datetime.now(UTC) + timedelta(hours=1), usegmt=True))
    assert soon is not None
    assert 3_000 < soon <= 3_600
    assert retry_after_seconds("Wed, 21 Oct 2015 07:28:00 GMT") == 0.0
    assert retry_after_seconds("Wed, 21 Oct 2015 07:28:00 -0000") == 0.0


def test_a_redirect_without_a_location_is_still_a_refusal() -> None:
    error = refusal(302, {}, url="ws://host/graphql", purpose="accept WebSocket upgrades")
    assert "redirects (HTTP 302)" in str(error)
