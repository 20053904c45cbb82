"""A Circuit Breaker server: workflows run, every change is logged, subscriptions stream it."""

from circuit_breaker_server.app import Server
from circuit_breaker_server.config import (
    ClusterSettings,
    DocumentLimits,
    OAuthProviderSettings,
    RateSettings,
    ServerSettings,
    TokenSettings,
)
from circuit_breaker_server.start_errors import RecordNotAppliedError, ServerStartError

__all__ = [
    "ClusterSettings",
    "DocumentLimits",
    "OAuthProviderSettings",
    "RateSettings",
    "RecordNotAppliedError",
    "Server",
    "ServerSettings",
    "ServerStartError",
    "TokenSettings",
]
