"""Answer ``connection_init``: authenticate the principal, negotiate the resume protocol."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from circuit_breaker_server.access.caller import Caller
from circuit_breaker_server.endpoints.services import Services
from circuit_breaker_server.security.authentication import REVOKED, Principal, Unauthenticated

__all__ = ["RESUME_VERSION", "ack_payload", "asks_for_traces", "authenticate", "negotiates_resume"]

RESUME_VERSION: Final = 1
"""The version of the resume protocol (docs/resume.md) that the server speaks."""


def authenticate(
    services: Services, payload: Mapping[str, object] | None, *, authorization: str | None, remote: str
) -> Caller:
    """Return the caller that a ``connection_init`` names; a refusal is written to the audit log.

    :param authorization: the header of the upgrade, for a client that puts nothing into its payload.
    :param remote: the peer's address and port.
    :raises Unauthenticated: the credentials are not accepted, or the principal is disabled.
    """
    address = _host(remote)
    try:
        principal = _enabled_principal(services, payload, authorization)
    except Unauthenticated as refused:
        services.audit.refused(address, "websocket", str(refused))
        raise
    return Caller(principal, services.permissions, address=address, audit=services.audit)


def _enabled_principal(
    services: Services, payload: Mapping[str, object] | None, authorization: str | None
) -> Principal:
    principal = services.authenticator.of_socket(authorization, payload)
    if services.permissions.is_disabled(principal):
        raise Unauthenticated(REVOKED)
    return principal


def negotiates_resume(payload: Mapping[str, object] | None) -> bool:
    """Tell whether a ``connection_init`` asks for the version of the resume protocol that we speak."""
    asked = (payload or {}).get("resume")
    return isinstance(asked, dict) and asked.get("version") == RESUME_VERSION


def asks_for_traces(payload: Mapping[str, object] | None) -> bool:
    """Tell whether a ``connection_init`` that asks for resume wants the traces of mutations, too."""
    asked = (payload or {}).get("resume")
    return isinstance(asked, dict) and asked.get("traceparent") is True


def ack_payload(epoch: str, *, resume: bool, tells_behind: bool = False) -> dict[str, object] | None:
    """Return the payload of ``connection_ack``; ``None`` for a client that has not negotiated resume.

    :param tells_behind: whether the client may ask how many records its subscriptions are behind.
    """
    if not resume:
        return None
    agreed: dict[str, object] = {"version": RESUME_VERSION, "epoch": epoch}
    if tells_behind:
        agreed["behind"] = True
    return {"resume": agreed}


def _host(remote: str) -> str:
    """Take the port off an address."""
    return remote.rpartition(":")[0] or remote
