"""Parse the URL given by the user: the WebSocket URL, the HTTP URL, and a form without secrets for logs."""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import SplitResult, parse_qsl, quote, urlsplit, urlunsplit

from circuit_breaker_sdk.errors import UsageError

__all__ = ["ascii_host", "http_url", "redacted", "split_url", "websocket_url"]

_WEBSOCKET_SCHEMES: Final = {"ws": "ws", "wss": "wss", "http": "ws", "https": "wss"}
_HTTP_SCHEMES: Final = {"ws": "http", "wss": "https", "http": "http", "https": "https"}
_HOST: Final = re.compile(r"[A-Za-z0-9._-]+")
_SECRET_NAMES: Final = frozenset(
    {
        "access_token",
        "accesstoken",
        "auth_token",
        "authorization",
        "authtoken",
        "bearer",
        "id_token",
        "jwt",
        "password",
        "refresh_token",
        "token",
    }
)
_DEFAULT_PATH: Final = "/graphql"
_EXAMPLE: Final = "for example ws://localhost:4000/graphql"
# RFC 3986: what a path or query may hold as it stands; "%" stays, it introduces what is already quoted.
_KEPT: Final = "/:?@!$&'()*+,;=~%[]"


def websocket_url(url: str) -> str:
    """Return where the WebSocket of ``url`` is: ``ws`` or ``wss``, with a path and an ASCII host.

    ``http`` becomes ``ws``, ``https`` becomes ``wss``; an empty path becomes ``/graphql``, any other path
    (``/`` too) stays as it is.

    :raises UsageError: not a URL that can be connected to; says what to write instead.

    Example::

        websocket_url("https://example.com") == "wss://example.com/graphql"
    """
    return _normalised(url, _WEBSOCKET_SCHEMES)


def http_url(url: str) -> str:
    """Return where the same server answers HTTP: ``ws`` becomes ``http``, ``wss`` becomes ``https``.

    The rules are those of :func:`websocket_url`.

    :raises UsageError: not a URL that can be connected to; says what to write instead.
    """
    return _normalised(url, _HTTP_SCHEMES)


def redacted(url: str) -> str:
    """Return ``url`` without user, password, query and fragment, for messages and logs; never raises."""
    try:
        parts = urlsplit(url)
        _ = parts.port  # of "user:password", where the host is missing, it is none
    except ValueError:
        return "<invalid URL>"
    netloc = parts.netloc.rpartition("@")[2]
    # Without a scheme and "//" there is no telling which part is the password.
    return urlunsplit((parts.scheme, netloc, parts.path, "", "")) if netloc else "<invalid URL>"


def _normalised(url: object, schemes: dict[str, str]) -> str:
    if not isinstance(url, str):
        raise UsageError(f"a URL is a text, {_EXAMPLE}; not {type(url).__name__}")
    # urlsplit drops some of these silently, and a line break would split the request line.
    if any(character.isspace() or not character.isprintable() for character in url):
        raise UsageError("the URL contains white space or control characters: remove them")
    split = split_url(url)
    if split is None:
        # Why is not said, and the error not chained: it repeats what may be a password.
        raise UsageError(f"not a URL, its host or port cannot be read: write the full address, {_EXAMPLE}")
    parts, port = split
    scheme = schemes.get(parts.scheme)
    if scheme is None or not parts.netloc:
        raise UsageError(
            f"{redacted(url)}: a URL must start with ws://, wss://, http:// or https://, {_EXAMPLE}"
        )
    if "@" in parts.netloc:
        raise UsageError(
            f"{redacted(url)}: user and password do not belong into the URL; give a token or a header"
        )
    if any(name.lower() in _SECRET_NAMES for name, _ in parse_qsl(parts.query, keep_blank_values=True)):
        raise UsageError(
            f"{redacted(url)}: a token does not belong into the URL, which logs and proxies keep: give it as "
            "token=, or as a header"
        )
    if parts.fragment:
        raise UsageError(f"{redacted(url)}: a URL to connect to has no fragment: remove what follows '#'")
    if port == 0:
        raise UsageError(f"{redacted(url)}: port 0 cannot be connected to: write the server's port")
    host = ascii_host(parts)
    return urlunsplit(
        (
            scheme,
            host if port is None else f"{host}:{port}",
            quote(parts.path, safe=_KEPT) or _DEFAULT_PATH,
            quote(parts.query, safe=_KEPT),
            "",
        )
    )


def split_url(url: str) -> tuple[SplitResult, int | None] | None:
    """Return the parts of a URL and its port; ``None`` where they cannot be read."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return None
    return parts, port


def ascii_host(parts: SplitResult, *, example: str = _EXAMPLE) -> str:
    """Return the host of a URL in ASCII; an IPv6 address is in brackets.

    :raises UsageError: it is missing, or none; says what to write instead, as in ``example``.
    """
    host = parts.hostname
    if not host:
        raise UsageError(f"{redacted(parts.geturl())}: the host is missing, {example}")
    if parts.netloc.startswith("["):
        import ipaddress  # noqa: PLC0415 (seldom needed, and the SDK imports fast)

        try:
            ipaddress.IPv6Address(host.partition("%")[0])
        except ValueError:
            raise UsageError(f"{redacted(parts.geturl())}: [{host}] is not an IPv6 address") from None
        return f"[{host}]"
    try:
        ascii_host = host.encode("idna").decode("ascii")
    except UnicodeError:
        ascii_host = ""
    # Some characters become others under IDNA: an acute accent alone, for one, becomes a space and a letter.
    if not _HOST.fullmatch(ascii_host):
        raise UsageError(f"{redacted(parts.geturl())}: {host!r} is not a host name, {example}")
    return ascii_host
