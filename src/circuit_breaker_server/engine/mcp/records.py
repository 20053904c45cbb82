"""The records of MCP servers, of sessions and of sign-ins that have begun.

Each holds its aggregate after the change. No key, token or secret header is in them: only the names of
secrets.
"""

from __future__ import annotations

from typing import final

import msgspec

from circuit_breaker_server.engine.mcp.capabilities import Offer
from circuit_breaker_server.engine.record_bodies import VersionedBody, decode_as
from circuit_breaker_server.log.event_log import Record, subject

__all__ = [
    "Body",
    "CapabilitiesRegistered",
    "Config",
    "Health",
    "Jwt",
    "OAuth",
    "Provider",
    "Refreshing",
    "Retry",
    "ServerChecked",
    "ServerDeleted",
    "ServerImage",
    "ServerPut",
    "SessionChanged",
    "SessionImage",
    "SignInBegun",
    "SignInUsed",
    "Ssl",
    "decode_body",
    "server_subject",
    "session_subject",
    "sign_in_subject",
]


def server_subject(server_id: str) -> str:
    """Name the subject of an MCP server's records."""
    return subject("mcp", "server", server_id)


def session_subject(server_id: str, user_id: str, session_id: str) -> str:
    """Name the subject of a session's records."""
    return subject("mcp", "session", server_id, user_id, session_id)


def sign_in_subject(key: str) -> str:
    """Name the subject of a sign-in's records."""
    return subject("mcp", "signin", key)


class _Part(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """The base of the values that records hold."""


@final
class Ssl(_Part, frozen=True, kw_only=True):
    """TLS settings of an https endpoint; ``client_key_id`` names the secret of the client's private key."""

    verify: bool
    ca_cert: str | None = None
    client_cert: str | None = None
    client_key_id: str | None = None


@final
class Retry(_Part, frozen=True, kw_only=True):
    """The number of attempts of a check, and the delays between them."""

    max_attempts: int
    initial_delay_ms: int
    max_delay_ms: int
    backoff_multiplier: float
    jitter_factor: float


@final
class Config(_Part, frozen=True, kw_only=True):
    """Connection settings of an MCP server; ``headers_id`` names the secret: an object of all headers."""

    endpoint: str
    timeout_seconds: int
    max_connections: int
    ssl: Ssl | None = None
    retry: Retry
    header_names: tuple[str, ...] = ()
    headers_id: str | None = None


@final
class Provider(_Part, frozen=True, kw_only=True):
    """An OAuth provider: public facts.

    :ivar type: ``GITLAB``, ``GITHUB``, ``GOOGLE``, ``MICROSOFT`` or ``CUSTOM``.
    """

    id: str
    name: str
    type: str
    authorization_endpoint: str
    token_endpoint: str
    user_info_endpoint: str | None = None
    revocation_endpoint: str | None = None
    supported_scopes: tuple[str, ...] = ()


@final
class Refreshing(_Part, frozen=True, kw_only=True):
    """When the tokens of an OAuth session are renewed."""

    auto_refresh: bool
    refresh_threshold_seconds: int
    max_refresh_attempts: int
    refresh_retry_delay_seconds: int


@final
class OAuth(_Part, frozen=True, kw_only=True, tag="oauth", tag_field="kind"):
    """Sign-in at a provider; ``client_secret_id`` names the secret."""

    provider: Provider
    client_id: str
    client_secret_id: str
    scopes: tuple[str, ...]
    redirect_uri: str
    additional_params: dict[str, str] = {}
    refreshing: Refreshing


@final
class Jwt(_Part, frozen=True, kw_only=True, tag="jwt", tag_field="kind"):
    """Sign-in with a signed token; ``private_key_id`` names the key that signs the checks' own tokens."""

    issuer: str
    audience: str | None = None
    public_key: str
    private_key_id: str | None = None
    algorithm: str
    expiration_seconds: int
    custom_claims: dict[str, object] = {}


@final
class ServerImage(_Part, frozen=True, kw_only=True):
    """An MCP server, but for what checks find.

    :ivar version: 1 when made; one more with each change of its settings.
    """

    id: str
    name: str
    description: str | None = None
    type: str
    tenant_id: str
    config: Config
    auth: OAuth | Jwt | None = None
    metadata: dict[str, object] | None = None
    tags: tuple[str, ...] = ()
    enabled: bool
    status: str
    created_at: str
    updated_at: str
    version: int = 1

    @property
    def secret_ids(self) -> frozenset[str]:
        """The names of its secrets."""
        found: list[str | None] = [self.config.headers_id]
        if self.config.ssl is not None:
            found.append(self.config.ssl.client_key_id)
        match self.auth:
            case OAuth(client_secret_id=id_):
                found.append(id_)
            case Jwt(private_key_id=id_or_none):
                found.append(id_or_none)
            case None:
                pass
        return frozenset(each for each in found if each is not None)


@final
class Health(_Part, frozen=True, kw_only=True):
    """The result of a check; each part is ``HEALTHY``, ``UNHEALTHY`` or ``UNKNOWN``."""

    at: str
    status: str
    response_time_ms: int | None = None
    connection: str
    authentication: str
    capabilities: str
    resources: str
    tools: str
    error: str | None = None


class _OfServer(VersionedBody, frozen=True, kw_only=True, omit_defaults=True):
    """A change of an MCP server.

    :ivar statuses: those it passed through, the old one first; empty if it has not changed.
    """

    id: str
    at: str
    cause: str
    statuses: tuple[str, ...] = ()


@final
class ServerPut(_OfServer, frozen=True, kw_only=True, tag="mcp_server_put"):
    """By the mutations that make and change an MCP server."""

    server: ServerImage


@final
class ServerChecked(_OfServer, frozen=True, kw_only=True, tag="mcp_server_checked"):
    """By a check that found something else than before, or that was asked for.

    :ivar offer: what it offers, if that has changed.
    """

    health: Health
    offer: Offer | None = None


@final
class CapabilitiesRegistered(_OfServer, frozen=True, kw_only=True, tag="mcp_capabilities_registered"):
    """By ``registerMcpCapabilities``; ``changes`` tells whether it changed what is offered."""

    offer: Offer
    changes: bool


@final
class ServerDeleted(_OfServer, frozen=True, kw_only=True, tag="mcp_server_deleted"):
    """By ``deleteMcpServer``."""


@final
class SessionImage(_Part, frozen=True, kw_only=True):
    """A session. Its tokens are secrets whose names follow from its id.

    :ivar status: ``ACTIVE``, ``EXPIRED`` or ``REVOKED``.
    :ivar method: ``OAUTH`` or ``JWT``.
    :ivar renewable: there is a refresh token.
    :ivar provider: the id of the provider that the user has signed in at; its tokens go nowhere else.
    """

    id: str
    server_id: str
    user_id: str
    status: str
    method: str
    token_expires_at: str | None = None
    metadata: dict[str, object] | None = None
    created_at: str
    last_activity_at: str
    expires_at: str
    refreshes: int = 0
    renewable: bool = False
    provider: str | None = None


@final
class SessionChanged(VersionedBody, frozen=True, kw_only=True, tag="mcp_session_changed", omit_defaults=True):
    """By sign-in, refresh, revocation, and the clock.

    :ivar change: an ``McpSessionEventType``.
    :ivar server: as it was then.
    :ivar active: active sessions of the MCP server after the change.
    """

    at: str
    change: str
    session: SessionImage
    server: ServerImage
    active: int
    error: str | None = None


@final
class SignInBegun(VersionedBody, frozen=True, kw_only=True, tag="mcp_sign_in_begun"):
    """By ``initiateMcpOAuth``; ``key`` is a digest of the state, which itself is a secret.

    :ivar provider: the id of the provider that the user is sent to; its code goes nowhere else.
    """

    key: str
    at: str
    server_id: str
    user_id: str
    redirect_uri: str
    expires_at: str
    provider: str | None = None


@final
class SignInUsed(VersionedBody, frozen=True, kw_only=True, tag="mcp_sign_in_used"):
    """By ``completeMcpOAuth``, before the code is exchanged: that must not happen twice."""

    key: str
    at: str


Body = (
    ServerPut
    | ServerChecked
    | CapabilitiesRegistered
    | ServerDeleted
    | SessionChanged
    | SignInBegun
    | SignInUsed
)
_DECODER: msgspec.json.Decoder[Body] = msgspec.json.Decoder(Body)


def decode_body(record: Record) -> Body:
    """Read a record of this domain.

    :raises LogCorruptError: it is of a newer version, of an unknown type, or no body at all.
    """
    return decode_as(_DECODER, record)
