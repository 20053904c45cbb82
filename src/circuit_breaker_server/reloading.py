"""The parts of a running server that take other settings over, without closing a connection."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from typing import final

from circuit_breaker_server import logs
from circuit_breaker_server.endpoints.endpoints import Endpoints
from circuit_breaker_server.gateway.gateway import Gateway
from circuit_breaker_server.gateway.pacing import Pacing
from circuit_breaker_server.graphql.documents import Documents
from circuit_breaker_server.graphql.idempotent_execution import Once
from circuit_breaker_server.net.http_server import Serving
from circuit_breaker_server.net.tls import load_certificate
from circuit_breaker_server.performance import Performance
from circuit_breaker_server.security.rate_limits import Rates
from circuit_breaker_server.security.work_budgets import Budgets
from circuit_breaker_server.settings.server import ServerSettings

__all__ = ["LiveParts", "values_per_second"]


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class LiveParts:
    """The parts that take other settings over: those that ``Setting.is_live`` names, and the certificate.

    Example::

        parts.take_over(replace(settings, log_level="info"))
    """

    performance: Performance
    rates: Rates
    budgets: Budgets
    gateway: Gateway
    documents: Documents
    once: Once
    endpoints: Endpoints
    serving: Serving
    tls: ssl.SSLContext | None

    def take_over(self, settings: ServerSettings) -> None:
        """Work by these settings from now on.

        :raises TlsError: the certificate cannot be used; nothing has changed.
        """
        if self.tls is not None and settings.tls_cert is not None and settings.tls_key is not None:
            load_certificate(self.tls, settings.tls_cert, settings.tls_key)
        logs.configure(settings.log_level, settings.log_format)
        self.performance.change(settings)
        self.rates.change(settings.rates)
        self.budgets.change(values_per_second(settings))
        self.gateway.pacing = Pacing.of(settings.rates.events_per_second)
        self.documents.change(settings.document_limits)
        self.once.max_cost = settings.document_limits.max_cost
        self.serving.change(settings)
        self.endpoints.principals.allowed = settings.max_connections_per_principal


def values_per_second(settings: ServerSettings) -> int | None:
    """Return the rate of values that answers may have; ``None``: callers are not known, or it is not set."""
    return None if settings.is_open else settings.rates.values_per_second
