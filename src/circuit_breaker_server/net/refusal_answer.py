"""The HTTP answer to a connection or request that the server refuses before any route is asked."""

from __future__ import annotations

from functools import lru_cache
from http import HTTPStatus

__all__ = ["RETRY_SECONDS", "refusal_bytes"]

RETRY_SECONDS = 5
"""The seconds in ``Retry-After`` when the server refuses a connection above a limit."""


@lru_cache(maxsize=256)
def refusal_bytes(status: int, text: str) -> bytes:
    """Return the whole answer to a connection that is refused or too slow."""
    body = text.encode() + b"\n"
    may_help = status in (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE)
    retry = f"Retry-After: {RETRY_SECONDS}\r\n" if may_help else ""
    head = (
        f"HTTP/1.1 {status:d} {HTTPStatus(status).phrase}\r\n"
        "Content-Type: text/plain; charset=utf-8\r\n"
        f"Content-Length: {len(body)}\r\n{retry}Connection: close\r\n\r\n"
    )
    return head.encode() + body
