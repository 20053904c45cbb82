"""Credentials of a connection: the only object that holds secrets; it never prints them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypeVar, final

from circuit_breaker_sdk.connections.redaction import Redaction, texts_in
from circuit_breaker_sdk.connections.tokens import Tokens, TokenSource
from circuit_breaker_sdk.errors import UsageError
from circuit_breaker_sdk.transports.headers import checked_headers
from circuit_breaker_sdk.transports.proxies import Proxies

__all__ = ["Credentials"]

V = TypeVar("V", bound=object)

# What these say is no secret, and errors about them would be riddles.
_HARMLESS = frozenset({"accept", "accept-language", "host", "locale", "origin", "referer", "user-agent"})


@final
class Credentials:
    """Token, headers and connection parameters of a client; ``repr`` shows names, never values.

    A token goes as ``Authorization: Bearer …`` into the headers of the upgrade and of every HTTP request,
    and under the same name into the payload of ``connection_init``, for servers that only look there.
    Headers and parameters given by name win over it. Where the token is a function, :attr:`tokens` asks it:
    headers and payload then hold a token once :meth:`Tokens.ready` has been awaited.

    Example::

        Credentials(token="…", headers={"X-Tenant": "acme"}, connection_params={"locale": "en"})
    """

    __slots__ = ("_connection_params", "_headers", "proxies", "redaction", "tokens")

    def __init__(
        self,
        *,
        token: str | TokenSource | None = None,
        headers: Mapping[str, str] | None = None,
        connection_params: Mapping[str, object] | None = None,
        proxies: Proxies | None = None,
    ) -> None:
        """``proxies``: whose credentials are kept secret too; ``None`` connects directly."""
        for name, value in (("headers", headers), ("connection_params", connection_params)):
            if value is not None and not isinstance(value, Mapping):
                raise UsageError(f"{name} must be a mapping, not {type(value).__name__}")
        self._headers = checked_headers(headers)
        self.tokens: Tokens = Tokens(token)
        self._connection_params = dict(connection_params or {})
        self.proxies: Proxies = proxies or Proxies(trust_env=False)
        self.redaction: Redaction = Redaction(self._secrets)
        """Takes all of these out of texts that a server may have written."""

    def headers(self) -> dict[str, str]:
        """Build the headers of an upgrade or an HTTP request."""
        return self._with_token(dict(self._headers))

    async def http_headers(self) -> Mapping[str, str]:
        """Build the headers of an HTTP request, with a token that has not expired.

        :raises ConnectionFailed: there is none, because its source failed.
        """
        await self.tokens.ready()
        return self.headers()

    def init_payload(self) -> dict[str, object]:
        """Build the payload of ``connection_init``, without the resume key."""
        return self._with_token(dict(self._connection_params))

    def _secrets(self) -> Iterable[str]:
        yield from self.tokens.recent
        yield from self.proxies.secrets()
        for values in (self._headers, self._connection_params):
            for name, value in values.items():
                if name.lower() not in _HARMLESS:
                    yield from texts_in(value)

    def _with_token(self, values: dict[str, V]) -> dict[str, V]:
        token = self.tokens.current
        if token is not None and not any(name.lower() == "authorization" for name in values):
            values["Authorization"] = f"Bearer {token}"  # type: ignore[assignment]  # a text is an object
        return values

    def __repr__(self) -> str:
        token = "set" if self.tokens.current is not None or self.tokens.can_refresh else None
        names = f"headers={sorted(self._headers)}, connection_params={sorted(self._connection_params)}"
        return f"Credentials(token={token}, {names})"
