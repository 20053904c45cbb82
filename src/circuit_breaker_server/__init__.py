"""A Circuit Breaker server: workflows run, every change is logged, subscriptions stream it."""

from circuit_breaker_server.app import RecordNotAppliedError, Server, ServerStartError
from circuit_breaker_server.config import (
    DocumentLimits,
    OAuthProviderSettings,
    RateSettings,
    ServerSettings,
    TokenSettings,
)

__all__ = [
    "DocumentLimits",
    "OAuthProviderSettings",
    "RateSettings",
    "RecordNotAppliedError",
    "Server",
    "ServerSettings",
    "ServerStartError",
    "TokenSettings",
]
