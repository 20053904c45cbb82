"""The public entry to the settings of a server: everything that a program passes to ``Server``."""

from __future__ import annotations

from circuit_breaker_server.settings.cluster import ClusterSettings
from circuit_breaker_server.settings.document_limits import DocumentLimits
from circuit_breaker_server.settings.oauth_providers import OAuthProviderSettings
from circuit_breaker_server.settings.rates import RateSettings
from circuit_breaker_server.settings.server import ServerSettings
from circuit_breaker_server.settings.tokens import TOKEN_ALGORITHMS, TokenSettings

__all__ = [
    "TOKEN_ALGORITHMS",
    "ClusterSettings",
    "DocumentLimits",
    "OAuthProviderSettings",
    "RateSettings",
    "ServerSettings",
    "TokenSettings",
]
