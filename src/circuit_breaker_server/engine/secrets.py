"""The interface of the store of secrets: records name secrets by id, and never hold one."""

from __future__ import annotations

from typing import Final, Protocol, final

from circuit_breaker_server.engine.errors import EngineError, ErrorCode

__all__ = ["NO_SECRETS", "Secrets"]


class Secrets(Protocol):
    """Secrets by id."""

    def get(self, id: str) -> str | None:  # noqa: A002 (what records call it)
        """Return a secret, ``None`` if there is none of that id."""
        ...

    async def find(self, id: str) -> str | None:  # noqa: A002 (as above)
        """Return a secret that another server may have put a moment ago; ``None`` if there is none."""
        ...

    def api_key(self, id: str, *, base_url: str, tenant: str | None) -> str | None:  # noqa: A002 (as above)
        """Return the operator's key of that id, ``None`` unless this tenant may send it to this address."""
        ...

    def ids(self) -> list[str]:
        """Return the ids of all secrets that are kept."""
        ...

    async def put(self, id: str, value: str) -> None:  # noqa: A002 (as above)
        """Keep a secret; durable when this returns."""
        ...

    async def remove(self, id: str) -> None:  # noqa: A002 (as above)
        """Forget a secret, if it is there."""
        ...


@final
class _NoSecrets:
    def get(self, id: str) -> str | None:  # noqa: A002, ARG002 (the port's own)
        return None

    def api_key(self, id: str, *, base_url: str, tenant: str | None) -> str | None:  # noqa: A002, ARG002 (as above)
        return None

    async def find(self, id: str) -> str | None:  # noqa: A002, ARG002 (as above)
        return None

    def ids(self) -> list[str]:
        return []

    async def put(self, id: str, value: str) -> None:  # noqa: A002, ARG002 (as above)
        raise EngineError(ErrorCode.UNAVAILABLE, "this server has no store of secrets: nothing was changed")

    async def remove(self, id: str) -> None:  # noqa: A002 (as above)
        """Do nothing."""


NO_SECRETS: Final = _NoSecrets()
"""For a server that keeps none."""
