"""The services of the server that all endpoints share."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from dataclasses import dataclass, field
from typing import Protocol, final

from circuit_breaker_server.access.audit_lines import NO_AUDIT, Auditor
from circuit_breaker_server.access.caller import Caller, Permissions
from circuit_breaker_server.admission.draining import Draining
from circuit_breaker_server.endpoints.positions import Positions
from circuit_breaker_server.gateway.gateway import Gateway
from circuit_breaker_server.graphql.documents import Document, Documents
from circuit_breaker_server.instruments import Instruments
from circuit_breaker_server.security.authentication import Authenticator
from circuit_breaker_server.security.rate_limits import Rates
from circuit_breaker_server.settings.rates import RateSettings
from circuit_breaker_server.settings.server import ServerSettings
from circuit_breaker_server.tracing import Tracer

__all__ = ["Execute", "Services"]


class Execute(Protocol):
    """Execute a query or a mutation; return the answer's JSON."""

    def __call__(
        self,
        document: Document,
        variables: Mapping[str, object] | None,
        operation_name: str | None,
        caller: Caller,
        /,
        *,
        with_cursor: bool,
    ) -> Awaitable[bytes]: ...


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """The services that all endpoints share.

    Example::

        Services(gateway=gateway, documents=documents, execute=execute, epoch=log.epoch, settings=settings)
    """

    gateway: Gateway
    documents: Documents
    execute: Execute
    epoch: str
    settings: ServerSettings
    authenticator: Authenticator = field(default_factory=Authenticator)
    permissions: Permissions = field(default_factory=Permissions)
    audit: Auditor = NO_AUDIT
    draining: Draining = field(default_factory=Draining)
    instruments: Instruments = field(default_factory=Instruments)
    tracer: Tracer | None = None
    positions: Positions | None = None
    rates: Rates = field(default_factory=lambda: Rates(RateSettings()))
