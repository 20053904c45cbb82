"""Check the head of a request for what uvicorn's parser lets through: its Host header, version and time."""

from __future__ import annotations

from collections.abc import Iterable
from http import HTTPStatus
from typing import Final

from circuit_breaker_server.admission.draining import DRAINING
from circuit_breaker_server.admission.hosts import Hosts
from circuit_breaker_server.paths import HEALTH_PATHS

__all__ = ["head_refusal"]

_OF_HEALTH: Final = frozenset(path.encode() for path in HEALTH_PATHS)


def head_refusal(
    version: str,
    headers: Iterable[tuple[bytes, bytes]],
    *,
    is_upgrade: bool,
    hosts: Hosts | None,
    url: bytes = b"",
    is_late: bool = False,
) -> tuple[int, str] | None:
    """Return the status and the text with which a request is refused, ``None`` for a head that is sound.

    :param headers: names in lower case.
    :param hosts: the names that a request may be for; ``None`` for any.
    :param url: what it is for.
    :param is_late: whether its connection came while the server drained: only its health is told then.
    """
    named = [value for name, value in headers if name == b"host"]
    defect = _defect(version, hosts=len(named), is_upgrade=is_upgrade)
    if defect is not None:
        return HTTPStatus.BAD_REQUEST, defect
    if hosts is not None and named:
        # Without a header it is HTTP/1.0, which no browser speaks.
        misdirected = hosts.refusal(named[0].decode("latin-1"))
        if misdirected is not None:
            return HTTPStatus.MISDIRECTED_REQUEST, misdirected
    if is_late and url.partition(b"?")[0] not in _OF_HEALTH:
        return HTTPStatus.SERVICE_UNAVAILABLE, DRAINING
    return None


def _defect(version: str, *, hosts: int, is_upgrade: bool) -> str | None:
    """Return the defect of a request's head that the parser lets through, ``None`` for none."""
    if hosts > 1 or (hosts == 0 and version != "1.0"):
        return f"a request has exactly one Host header, not {hosts} (RFC 9112, section 3.2)"
    if is_upgrade and version == "1.0":
        return "a WebSocket needs HTTP/1.1 (RFC 6455, section 4.2.1)"
    return None
