"""What a connection shows of its user: the one place that holds secrets, and never prints them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import final

from circuit_breaker_sdk.errors import UsageError

__all__ = ["Credentials"]

_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
# Visible characters, inner spaces and tabs (RFC 9110, section 5.5): above all no line break, which would
# let a value add headers of its own.
_VALUE = re.compile(r"[\x21-\x7e]([\x20-\x7e\t]*[\x21-\x7e])?")


def _check_header(name: str, value: str) -> None:
    if not _NAME.fullmatch(name):
        raise UsageError(f"{name!r} is no name for an HTTP header")
    if not _VALUE.fullmatch(value):
        # The value is not shown: it may be a secret.
        raise UsageError(f"the value of header {name!r} is empty or has characters that no header may have")


@final
class Credentials:
    """Token, headers and connection parameters of a client; ``repr`` shows names, never values.

    A token goes as ``Authorization: Bearer …`` into the headers of the upgrade and of every HTTP request,
    and under the same name into the payload of ``connection_init``, for servers that only look there.
    Headers and parameters given by name win over it.

    Example::

        Credentials(token="…", headers={"X-Tenant": "acme"}, connection_params={"locale": "en"})
    """

    __slots__ = ("_connection_params", "_headers", "_token")

    def __init__(
        self,
        *,
        token: str | None = None,
        headers: Mapping[str, str] | None = None,
        connection_params: Mapping[str, object] | None = None,
    ) -> None:
        self._headers = dict(headers or {})
        for name, value in self._headers.items():
            _check_header(name, value)
        if token is not None:
            if not _VALUE.fullmatch(token) or " " in token or "\t" in token:
                raise UsageError("the token is empty, or has spaces or characters that no header may have")
            if not any(name.lower() == "authorization" for name in self._headers):
                self._headers["Authorization"] = f"Bearer {token}"
        self._token = token
        self._connection_params = dict(connection_params or {})

    def headers(self) -> dict[str, str]:
        """Build the headers of an upgrade or an HTTP request."""
        return dict(self._headers)

    async def http_headers(self) -> Mapping[str, str]:
        """Build the headers of an HTTP request."""
        return dict(self._headers)

    def init_payload(self) -> dict[str, object]:
        """Build the payload of ``connection_init``, without the resume key."""
        payload = dict(self._connection_params)
        if self._token is not None and not any(name.lower() == "authorization" for name in payload):
            payload["Authorization"] = f"Bearer {self._token}"
        return payload

    def __repr__(self) -> str:
        token = "set" if self._token is not None else None
        names = f"headers={sorted(self._headers)}, connection_params={sorted(self._connection_params)}"
        return f"Credentials(token={token}, {names})"
