"""Check the ``Origin`` of browsers' requests: the server's own, and those that are configured.

A client that is no browser sends no ``Origin`` and needs none: a client that can leave it out can also forge
it. The check protects the person in front of a browser from pages that use their network or machine.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, TypeAlias, final
from urllib.parse import urlsplit

__all__ = ["Origins", "origin_parts"]

Parts: TypeAlias = tuple[str, str, int]
"""Scheme, host, port."""

_PORTS: Final = {"http": 80, "https": 443}


def origin_parts(text: str) -> Parts:
    """Return scheme, host and port of an origin, as ``https://example.com`` or ``http://[::1]:8080``.

    :raises ValueError: it is none, or has more than these three.
    """
    parts = urlsplit(text)
    wrong = f"{text!r} is no origin; write https://example.com, with :port where it is not the usual one"
    host = parts.hostname
    if parts.scheme not in _PORTS or not host or "@" in parts.netloc or "*" in host:
        raise ValueError(wrong)
    if text.lower() != f"{parts.scheme}://{parts.netloc}".lower() or not text.isascii() or " " in text:
        raise ValueError(wrong)
    try:
        return parts.scheme, host, parts.port or _PORTS[parts.scheme]
    except ValueError as error:
        raise ValueError(wrong) from error


@final
class Origins:
    """Decides about ``Origin`` headers.

    :param allowed: exact origins, besides the server's own.

    Example::

        Origins(["https://app.example.com"]).refusal("https://evil.example", host="localhost:4000")
    """

    def __init__(self, allowed: Sequence[str] = ()) -> None:
        self._allowed = frozenset(map(origin_parts, allowed))

    def refusal(self, origin: str | None, *, host: str | None, secure: bool = False) -> str | None:
        """Return why a request is refused, ``None`` where it is not.

        :param origin: the header; ``None`` where there is none.
        :param host: the header ``Host``.
        :param secure: whether the server itself speaks TLS; a proxy before it may do so in any case.
        """
        if origin is None:
            return None
        try:
            parts = origin_parts(origin)
        except ValueError:
            parts = None  # `null`, as sandboxed pages and files have it, or nonsense
        if parts is not None and (parts in self._allowed or _is_same(parts, host, secure)):
            return None
        return (
            f"pages of the origin {origin[:200]!r} may not use this server; "
            "allow it by allowed_origins, or --allowed-origin"
        )


def _is_same(parts: Parts, host: str | None, secure: bool) -> bool:
    scheme = parts[0]
    if not host or (secure and scheme != "https"):
        return False
    try:
        return origin_parts(f"{scheme}://{host}") == parts
    except ValueError:
        return False
