"""Settings of the OAuth providers at which users of MCP servers may sign in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from circuit_breaker_server.outbound.addresses import host_of

__all__ = ["OAuthProviderSettings"]


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class OAuthProviderSettings:
    """An OAuth provider at which users of MCP servers may sign in, besides the built-in providers.

    :ivar id: unique; inputs name it as ``providerId``.

    Example::

        OAuthProviderSettings(
            id="corp", name="Corp", authorization_endpoint="https://…", token_endpoint="https://…"
        )
    """

    id: str
    name: str
    authorization_endpoint: str
    token_endpoint: str
    user_info_endpoint: str | None = None
    revocation_endpoint: str | None = None
    supported_scopes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.id or not self.name:
            raise ValueError("an OAuth provider needs an id and a name")
        for url in (self.authorization_endpoint, self.token_endpoint):
            try:
                host_of(url)
            except ValueError as error:
                raise ValueError(f"OAuth provider {self.id}: {url!r}: {error}") from error
