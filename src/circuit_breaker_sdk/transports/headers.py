"""Which headers a user may give: one rule for every transport, checked in the constructor and when sent."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from circuit_breaker_sdk.errors import UsageError

__all__ = ["check_header", "checked_headers"]

_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
# Visible characters, inner spaces and tabs (RFC 9110, section 5.5): above all no line break, which would
# let a value add headers of its own.
_VALUE: Final = re.compile(r"[\x21-\x7e]([\x20-\x7e\t]*[\x21-\x7e])?")
# Set by one transport or the other: a header that only one of them may have would work until the other is
# needed.
_RESERVED: Final = frozenset(
    {
        "accept",
        "connection",
        "content-length",
        "content-type",
        "sec-websocket-accept",
        "sec-websocket-extensions",
        "sec-websocket-key",
        "sec-websocket-protocol",
        "sec-websocket-version",
        "transfer-encoding",
        "upgrade",
    }
)


def check_header(name: object, value: object) -> None:
    """Check one header.

    :raises UsageError: a name or value that would break the request, or a name that the handshake or the
        request itself sets. The value is not repeated in the message: it may be a secret.
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise UsageError(f"{name!r} is no name for an HTTP header")
    if name.lower() in _RESERVED:
        raise UsageError(f"the header {name} is set by the client itself: remove it")
    if not isinstance(value, str) or not _VALUE.fullmatch(value):
        raise UsageError(f"the value of header {name!r} is empty or has characters that no header may have")


def checked_headers(headers: Mapping[str, str] | None) -> dict[str, str]:
    """Return ``headers`` as every transport may send them.

    :raises UsageError: as :func:`check_header`, or a name is there twice, in different cases.
    """
    checked = dict(headers or {})
    names: set[str] = set()
    for name, value in checked.items():
        check_header(name, value)
        if name.lower() in names:
            raise UsageError(f"the header {name} is given twice, in different cases: give it once")
        names.add(name.lower())
    return checked
