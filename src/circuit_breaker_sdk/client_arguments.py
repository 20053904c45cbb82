"""Checks of the client's arguments: each names the argument, what was given and what is expected."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from circuit_breaker_sdk.config import Heartbeat, MessageBatching, MessageLimits, Timeouts, TransportKind
from circuit_breaker_sdk.connections import ConnectionSettings, Credentials, TokenSource
from circuit_breaker_sdk.errors import UsageError
from circuit_breaker_sdk.observability.tracing import Tracer
from circuit_breaker_sdk.transports.proxies import Proxies
from circuit_breaker_sdk.urls import websocket_url

if TYPE_CHECKING:
    import ssl as tls

__all__ = ["check_types", "checked_text", "checked_transports", "checked_urls", "connection_settings"]


def checked_urls(given: object) -> Sequence[str]:
    """Return the URLs of a client: one, or several in order of preference."""
    if isinstance(given, str):
        return (given,)
    if not isinstance(given, Sequence):
        raise UsageError(f"a URL is a text, or several in a list; not {type(given).__name__}")
    if not given:
        raise UsageError("a client needs a URL")
    return given


def checked_text(value: object, name: str) -> str:
    """Return a text that is not blank; ``name`` is the argument's."""
    if not isinstance(value, str) or not value.strip():
        raise UsageError(f"{name} must be a text that is not empty, not {value!r:.60}")
    return value


def connection_settings(
    url: str,
    *,
    token: str | TokenSource | None,
    headers: Mapping[str, str] | None,
    connection_params: Mapping[str, object] | None,
    ssl: object,
    limits: MessageLimits | None,
    timeouts: Timeouts | None,
    heartbeat: Heartbeat | None,
    batching: MessageBatching | None,
    proxy: str | None,
    trust_env: bool,
    tracer: Tracer | None,
) -> ConnectionSettings:
    """Check what concerns the connection, and return it as settings.

    :raises UsageError: an argument cannot be used.
    """
    check_types(
        limits=(limits, MessageLimits),
        timeouts=(timeouts, Timeouts),
        heartbeat=(heartbeat, Heartbeat),
        batching=(batching, MessageBatching),
    )
    return ConnectionSettings(
        url=websocket_url(url),
        credentials=Credentials(
            token=token,
            headers=headers,
            connection_params=connection_params,
            proxies=Proxies(proxy, trust_env=trust_env),
        ),
        ssl=_checked_context(ssl),
        limits=limits or MessageLimits(),
        timeouts=timeouts or Timeouts(),
        heartbeat=heartbeat,
        batching=batching or MessageBatching(),
        tracer=tracer,
    )


def checked_transports(given: Sequence[str]) -> tuple[TransportKind, ...]:
    """Return the transports of a client, in order of preference.

    :raises UsageError: there is none, one is unknown, or stands there twice.
    """
    known = ", ".join(repr(str(kind)) for kind in TransportKind)
    if isinstance(given, str) or not isinstance(given, Sequence):
        raise UsageError(f"transports must be a tuple of {known}, not {given!r:.60}")
    try:
        kinds = tuple(TransportKind(each) for each in given)
    except ValueError as error:
        raise UsageError(f"transports may hold {known}; {error}") from None
    if not kinds or len(set(kinds)) != len(kinds):
        raise UsageError(f"transports must hold each of {known} at most once, and at least one")
    if TransportKind.WEBSOCKET in kinds[1:]:
        raise UsageError("transports: 'websocket' comes first, or not at all; the others are its fallbacks")
    return kinds


def _checked_context(given: object) -> tls.SSLContext | None:
    if given is None:
        return None
    import ssl as tls  # noqa: PLC0415 (4 ms that most programs can do without)

    if not isinstance(given, tls.SSLContext):
        # Each transport reads False, True and a path in its own way; False would send the token to anyone.
        raise UsageError(
            f"ssl must be an ssl.SSLContext or None, not {given!r:.60}. None verifies the server against "
            "what the system trusts; ssl.create_default_context(cafile=…) verifies it against certificates "
            "of your own. To verify nothing, pass a context that says so (check_hostname = False, "
            "verify_mode = ssl.CERT_NONE)."
        )
    return given


def check_types(**given: tuple[object, type | tuple[type, ...]]) -> None:
    """Refuse arguments of another type; each is ``name=(value, type or types)``, and ``None`` fits."""
    for name, (value, kind) in given.items():
        if value is not None and not isinstance(value, kind):
            kinds = " or ".join(each.__name__ for each in (kind if isinstance(kind, tuple) else (kind,)))
            raise UsageError(f"{name} must be of type {kinds}, not {type(value).__name__}")
