"""The secrets of sign-ins: the tokens of sessions, and the client secrets of MCP servers."""

from __future__ import annotations

from collections.abc import Iterable
from typing import final

from circuit_breaker_server.engine.errors import EngineError, ErrorCode
from circuit_breaker_server.engine.mcp.oauth import Tokens
from circuit_breaker_server.engine.mcp.records import OAuth
from circuit_breaker_server.engine.secrets import Secrets

__all__ = ["SessionTokens", "client_secret_of"]


@final
class SessionTokens:
    """The access token and the refresh token of each session, in the store of secrets."""

    def __init__(self, secrets: Secrets) -> None:
        self._secrets = secrets

    def secret_ids(self, session_ids: Iterable[str]) -> set[str]:
        """Return the ids of the secrets that sessions may have."""
        return {make(id_) for id_ in session_ids for make in (_access_id, _refresh_id)}

    async def refresh_token(self, session_id: str) -> str | None:
        """Return the refresh token of a session, ``None`` if it has none."""
        return await self._secrets.find(_refresh_id(session_id))

    async def keep(self, session_id: str, tokens: Tokens) -> None:
        """Keep the tokens of a session in the place of those before.

        A refresh token stays until the provider gives another.

        :raises EngineError: ``UNAVAILABLE``.
        """
        await self._secrets.put(_access_id(session_id), tokens.access_token)
        if tokens.refresh_token is not None:
            await self._secrets.put(_refresh_id(session_id), tokens.refresh_token)

    async def forget(self, session_id: str) -> None:
        """Forget the tokens of a session, if it has any."""
        await self._secrets.remove(_access_id(session_id))
        await self._secrets.remove(_refresh_id(session_id))


async def client_secret_of(auth: OAuth, secrets: Secrets) -> str:
    """Return the client's secret.

    :raises EngineError: ``UNAVAILABLE``: the store has lost it.
    """
    found = await secrets.find(auth.client_secret_id)
    if found is None:
        raise EngineError(
            ErrorCode.UNAVAILABLE, "the client's secret is not in the store of secrets; configure it again"
        )
    return found


def _access_id(session_id: str) -> str:
    return f"mcp-access-{session_id}"


def _refresh_id(session_id: str) -> str:
    return f"mcp-refresh-{session_id}"
