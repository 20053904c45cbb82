"""From the inputs of the commands on MCP servers to what records hold, checked, secrets taken out."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Collection, Mapping
from typing import Final, final
from urllib.parse import urlsplit

import msgspec

from circuit_breaker_server.engine.errors import shown
from circuit_breaker_server.engine.mcp.capabilities import Listing
from circuit_breaker_server.engine.mcp.inputs import (
    AuthInput,
    ConfigInput,
    JwtInput,
    OAuthInput,
    RefreshInput,
    RegisterCapabilities,
    RetryInput,
    SslInput,
)
from circuit_breaker_server.engine.mcp.jwt import check_keys
from circuit_breaker_server.engine.mcp.oauth import check_params
from circuit_breaker_server.engine.mcp.records import Config, Jwt, OAuth, Provider, Refreshing, Retry, Ssl
from circuit_breaker_server.engine.mcp.tls import check_tls
from circuit_breaker_server.engine.validation import (
    check_count,
    check_description,
    check_name,
    check_peer,
    check_range,
    check_unique,
    check_url,
    json_object,
    refuse,
)
from circuit_breaker_server.outbound import AddressRules

__all__ = [
    "NewSecrets",
    "check_listing",
    "check_redirect",
    "checked_auth",
    "checked_config",
    "checked_jwt",
    "checked_metadata",
    "checked_oauth",
    "checked_tags",
    "text_object",
]

MAX_JSON_BYTES: Final = 64 * 1024
MAX_LISTING_BYTES: Final = 256 * 1024
MAX_LISTED: Final = 500
_MAX_PEM = 64 * 1024
_MAX_URL = 2048
_MAX_SECRET = 4096
_MAX_HEADERS = 50
_MAX_TAGS = 50
_YEAR = 31_536_000
_OWN_HEADERS = frozenset(
    {"host", "content-length", "content-type", "accept", "connection", "transfer-encoding", "mcp-session-id"}
)


@final
class NewSecrets:
    """Secrets on their way into the store: taken out of an input, each under a name of its own.

    :param new_id: makes names.
    """

    def __init__(self, new_id: Callable[[], str]) -> None:
        self.values: dict[str, str] = {}
        self._new_id = new_id

    def take(self, value: str | None) -> str | None:
        """Take a secret; return its name."""
        if value is None:
            return None
        id_ = f"mcp-{self._new_id()}"
        self.values[id_] = value
        return id_


def checked_config(
    given: ConfigInput, type_: str, secrets: NewSecrets, rules: AddressRules, *, max_seconds: float
) -> Config:
    """Return how an MCP server is reached.

    :param max_seconds: the longest timeout. A check with all its tries is over within the timeout, so that it
        bounds the delays between them as well.

    :raises EngineError: ``INVALID_INPUT``.
    """
    endpoint = given.endpoint
    if endpoint is None:
        refuse(
            "config.endpoint: is needed; this server reaches MCP servers over HTTP and starts no programs, "
            "LOCAL ones neither"
        )
    _check_url(endpoint, "config.endpoint")
    check_peer(endpoint, rules, "config.endpoint")
    if type_ == "LOCAL" and not _is_loopback(endpoint):
        refuse("config.endpoint: of a LOCAL server must be on this machine: localhost, 127.0.0.1 or [::1]")
    if given.rate_limit is not None:
        refuse("config.rateLimit: is not supported; the server sends nothing but its checks, at its own pace")
    longest = max(1, int(max_seconds))
    timeout_seconds = min(30, longest) if given.timeout_seconds is None else given.timeout_seconds
    check_range(timeout_seconds, 1, longest, "config.timeoutSeconds")
    max_connections = 10 if given.max_connections is None else given.max_connections
    check_range(max_connections, 2, 100, "config.maxConnections")
    retry = _checked_retry(given.retry or RetryInput())
    headers = text_object(given.headers, "config.headers", most=_MAX_HEADERS)
    for name, value in headers.items():
        _check_header(name, value)
    ssl = None if given.ssl is None else _checked_ssl(given.ssl, endpoint, secrets)
    return Config(
        endpoint=endpoint,
        timeout_seconds=timeout_seconds,
        max_connections=max_connections,
        ssl=ssl,
        retry=retry,
        header_names=tuple(headers),
        headers_id=secrets.take(msgspec.json.encode(headers).decode()) if headers else None,
    )


def _checked_retry(given: RetryInput) -> Retry:
    retry = Retry(
        max_attempts=3 if given.max_attempts is None else given.max_attempts,
        initial_delay_ms=1000 if given.initial_delay_ms is None else given.initial_delay_ms,
        max_delay_ms=30_000 if given.max_delay_ms is None else given.max_delay_ms,
        backoff_multiplier=2.0 if given.backoff_multiplier is None else given.backoff_multiplier,
        jitter_factor=0.1 if given.jitter_factor is None else given.jitter_factor,
    )
    check_range(retry.max_attempts, 1, 10, "config.retry.maxAttempts")
    check_range(retry.initial_delay_ms, 0, 60_000, "config.retry.initialDelayMs")
    check_range(retry.max_delay_ms, 0, 60_000, "config.retry.maxDelayMs")
    check_range(retry.backoff_multiplier, 1, 10, "config.retry.backoffMultiplier")
    check_range(retry.jitter_factor, 0, 1, "config.retry.jitterFactor")
    return retry


def _checked_ssl(given: SslInput, endpoint: str, secrets: NewSecrets) -> Ssl:
    if urlsplit(endpoint).scheme != "https":
        refuse("config.ssl: is for https endpoints only")
    if (given.client_cert is None) != (given.client_key is None):
        refuse("config.ssl: clientCert and clientKey are given together, or neither")
    verify = True if given.verify is None else given.verify
    if not verify and given.ca_cert is not None:
        refuse("config.ssl: caCert is not looked at where verify is false; leave out one of the two")
    for name in ("ca_cert", "client_cert", "client_key"):
        text = getattr(given, name)
        if text is not None and len(text) > _MAX_PEM:
            refuse(f"config.ssl: a PEM has at most {_MAX_PEM} characters")
    check_tls(ca_cert=given.ca_cert, client_cert=given.client_cert, client_key=given.client_key)
    return Ssl(
        verify=verify,
        ca_cert=given.ca_cert,
        client_cert=given.client_cert,
        client_key_id=secrets.take(given.client_key),
    )


def _check_header(name: str, value: str) -> None:
    if not name.isascii() or not name.replace("-", "").replace("_", "").isalnum():
        refuse(f"config.headers: {shown(name)} is not the name of a header")
    if name.lower() in _OWN_HEADERS:
        refuse(f"config.headers: {name} is the protocol's own")
    if not value.isascii() or not value.isprintable():
        refuse(f"config.headers.{name}: must be printable ASCII")


def checked_auth(
    given: AuthInput,
    providers: Mapping[str, Provider],
    secrets: NewSecrets,
    redirects: Collection[str] | None,
) -> OAuth | Jwt:
    """Return how users sign in.

    :raises EngineError: ``INVALID_INPUT``.
    """
    if (given.oauth is None) == (given.jwt is None):
        refuse("auth: give exactly one of oauth and jwt")
    if given.oauth is not None:
        return checked_oauth(given.oauth, providers, secrets, "auth.oauth", redirects)
    if given.jwt is not None:
        return checked_jwt(given.jwt, secrets, "auth.jwt")
    raise AssertionError("one of the two is there")


def checked_oauth(
    given: OAuthInput,
    providers: Mapping[str, Provider],
    secrets: NewSecrets,
    where: str,
    redirects: Collection[str] | None,
) -> OAuth:
    """Return sign-in at a provider.

    :raises EngineError: ``INVALID_INPUT``.
    """
    provider = providers.get(given.provider_id)
    if provider is None:
        refuse(f"{where}.providerId: {shown(given.provider_id)} is none of {', '.join(providers)}")
    check_name(given.client_id, f"{where}.clientId")
    if not given.client_secret or len(given.client_secret) > _MAX_SECRET:
        refuse(f"{where}.clientSecret: must not be empty, and has at most {_MAX_SECRET} characters")
    check_count(given.scopes, 100, f"{where}.scopes")
    check_unique(given.scopes, f"{where}.scopes")
    for scope in given.scopes:
        check_name(scope, f"{where}.scopes")
        if " " in scope:
            refuse(f"{where}.scopes: {shown(scope)} has a blank in it; give each scope on its own")
    check_redirect(given.redirect_uri, f"{where}.redirectUri", redirects)
    wanted = given.refresh_config or RefreshInput()
    found = Refreshing(
        auto_refresh=True if wanted.auto_refresh is None else wanted.auto_refresh,
        refresh_threshold_seconds=300
        if wanted.refresh_threshold_seconds is None
        else wanted.refresh_threshold_seconds,
        max_refresh_attempts=3 if wanted.max_refresh_attempts is None else wanted.max_refresh_attempts,
        refresh_retry_delay_seconds=5
        if wanted.refresh_retry_delay_seconds is None
        else wanted.refresh_retry_delay_seconds,
    )
    check_range(found.refresh_threshold_seconds, 0, 86_400, f"{where}.refreshConfig.refreshThresholdSeconds")
    check_range(found.max_refresh_attempts, 1, 10, f"{where}.refreshConfig.maxRefreshAttempts")
    check_range(found.refresh_retry_delay_seconds, 0, 300, f"{where}.refreshConfig.refreshRetryDelaySeconds")
    params = text_object(given.additional_params, f"{where}.additionalParams")
    check_params(params, f"{where}.additionalParams")
    return OAuth(
        provider=provider,
        client_id=given.client_id,
        client_secret_id=secrets.take(given.client_secret) or "",
        scopes=given.scopes,
        redirect_uri=given.redirect_uri,
        additional_params=params,
        refreshing=found,
    )


def checked_jwt(given: JwtInput, secrets: NewSecrets, where: str) -> Jwt:
    """Return sign-in with a signed token.

    :raises EngineError: ``INVALID_INPUT``.
    """
    check_name(given.issuer, f"{where}.issuer")
    if given.audience is not None:
        check_name(given.audience, f"{where}.audience")
    for text in (given.public_key, given.private_key):
        if text is not None and len(text) > _MAX_PEM:
            refuse(f"{where}: a key has at most {_MAX_PEM} characters")
    algorithm = given.algorithm or "RS256"
    check_keys(given.public_key, given.private_key, algorithm, where)
    expiration_seconds = 3600 if given.expiration_seconds is None else given.expiration_seconds
    check_range(expiration_seconds, 1, _YEAR, f"{where}.expirationSeconds")
    claims = json_object(given.custom_claims, f"{where}.customClaims", max_bytes=MAX_JSON_BYTES)
    for own in ("iss", "aud", "exp", "nbf", "iat", "sub", "jti"):
        if own in claims:
            refuse(f"{where}.customClaims: {own} is not a claim of your own")
    return Jwt(
        issuer=given.issuer,
        audience=given.audience,
        public_key=given.public_key,
        private_key_id=secrets.take(given.private_key),
        algorithm=algorithm,
        expiration_seconds=expiration_seconds,
        custom_claims=claims,
    )


def checked_metadata(value: object, where: str = "metadata") -> dict[str, object] | None:
    """Return an object of bounded size, or nothing.

    :raises EngineError: ``INVALID_INPUT``.
    """
    return None if value is None else json_object(value, where, max_bytes=MAX_JSON_BYTES)


def checked_tags(tags: tuple[str, ...]) -> tuple[str, ...]:
    """Return tags as they are.

    :raises EngineError: ``INVALID_INPUT``.
    """
    check_count(tags, _MAX_TAGS, "tags")
    check_unique(tags, "tags")
    for tag in tags:
        check_name(tag, "tags")
    return tags


def check_listing(given: RegisterCapabilities | Listing, where: str = "input") -> None:
    """Refuse what an MCP server cannot offer, or what is too much to keep.

    :raises EngineError: ``INVALID_INPUT``.
    """
    check_name(given.protocol_version, "protocolVersion")
    for name, items, key in (
        ("tools", given.tools, [tool.name for tool in given.tools]),
        ("resources", given.resources, [resource.uri for resource in given.resources]),
        ("prompts", given.prompts, [prompt.name for prompt in given.prompts]),
    ):
        check_count(items, MAX_LISTED, name)
        check_unique(key, name)
        for each in key:
            if not each or len(each) > _MAX_URL:
                refuse(f"{name}: a name or URI must not be empty, and has at most {_MAX_URL} characters")
    for tool in given.tools:
        check_description(tool.description, f"tools: {shown(tool.name)}.description")
        if not isinstance(tool.input_schema, dict):
            refuse(f"tools: {shown(tool.name)}.inputSchema: must be an object")
    for prompt in given.prompts:
        check_description(prompt.description, f"prompts: {shown(prompt.name)}.description")
        check_unique((parameter.name for parameter in prompt.parameters), f"prompts: {shown(prompt.name)}")
    size = given.features.max_request_size
    if size is not None and size < 1:
        refuse(f"features.maxRequestSize: {size} is less than 1")
    whole: dict[str, object] = msgspec.to_builtins(given)
    json_object(whole, where, max_bytes=MAX_LISTING_BYTES)


def text_object(value: object, where: str, *, most: int = 50) -> dict[str, str]:
    """Return an object whose values are texts; ``None`` stands for an empty one.

    :raises EngineError: ``INVALID_INPUT``.
    """
    found = json_object(value, where, max_bytes=MAX_JSON_BYTES)
    check_count(found, most, where)
    texts = {name: text for name, text in found.items() if isinstance(text, str)}
    if len(texts) < len(found):
        refuse(f"{where}: every value must be a text")
    return texts


def check_redirect(url: str, where: str, allowed: Collection[str] | None) -> None:
    """Refuse where no provider can send a user back to, or where none should: the code in it signs users in.

    :param allowed: word for word; loopback is allowed as well. ``None`` allows any.
    :raises EngineError: ``INVALID_INPUT``.
    """
    _check_url(url, where)
    if allowed is not None and url not in allowed and not _is_loopback(url):
        refuse(
            f"{where}: is neither configured for this MCP server, nor on loopback, nor allowed by the "
            "operator (allowed_redirects)"
        )


def _check_url(url: str, where: str) -> None:
    check_url(url, where)
    if "#" in url:
        refuse(f"{where}: must have no fragment (#…)")


def _is_loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
