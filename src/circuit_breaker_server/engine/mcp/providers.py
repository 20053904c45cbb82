# ruff: noqa: S106 (the URLs of token endpoints are no passwords)
"""The OAuth providers that are built in: their public endpoints, as they document them."""

from __future__ import annotations

from typing import Final

from circuit_breaker_server.engine.mcp.records import Provider
from circuit_breaker_server.settings.oauth_providers import OAuthProviderSettings

__all__ = ["BUILT_IN", "custom"]

BUILT_IN: Final = (
    Provider(
        id="gitlab",
        name="GitLab",
        type="GITLAB",
        authorization_endpoint="https://gitlab.com/oauth/authorize",
        token_endpoint="https://gitlab.com/oauth/token",
        user_info_endpoint="https://gitlab.com/oauth/userinfo",
        revocation_endpoint="https://gitlab.com/oauth/revoke",
        supported_scopes=("openid", "profile", "email", "read_user", "read_api", "api"),
    ),
    Provider(
        id="github",
        name="GitHub",
        type="GITHUB",
        authorization_endpoint="https://github.com/login/oauth/authorize",
        token_endpoint="https://github.com/login/oauth/access_token",
        user_info_endpoint="https://api.github.com/user",
        supported_scopes=("read:user", "user:email", "read:org", "repo"),
    ),
    Provider(
        id="google",
        name="Google",
        type="GOOGLE",
        authorization_endpoint="https://accounts.google.com/o/oauth2/v2/auth",
        token_endpoint="https://oauth2.googleapis.com/token",
        user_info_endpoint="https://openidconnect.googleapis.com/v1/userinfo",
        revocation_endpoint="https://oauth2.googleapis.com/revoke",
        supported_scopes=("openid", "profile", "email"),
    ),
    Provider(
        id="microsoft",
        name="Microsoft",
        type="MICROSOFT",
        authorization_endpoint="https://login.microsoftonline.com/common/oauth2/v2.0/authorize",
        token_endpoint="https://login.microsoftonline.com/common/oauth2/v2.0/token",
        user_info_endpoint="https://graph.microsoft.com/oidc/userinfo",
        supported_scopes=("openid", "profile", "email", "offline_access", "User.Read"),
    ),
)
"""In the order in which they are shown."""


def custom(given: OAuthProviderSettings) -> Provider:
    """Return a provider of the server's settings."""
    return Provider(
        id=given.id,
        name=given.name,
        type="CUSTOM",
        authorization_endpoint=given.authorization_endpoint,
        token_endpoint=given.token_endpoint,
        user_info_endpoint=given.user_info_endpoint,
        revocation_endpoint=given.revocation_endpoint,
        supported_scopes=given.supported_scopes,
    )
