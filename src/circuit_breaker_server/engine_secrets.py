"""The store of secrets as the engine uses it: where it cannot be reached, a command is refused."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import final

from circuit_breaker_server.engine.errors import EngineError, ErrorCode
from circuit_breaker_server.engine.secrets import Secrets
from circuit_breaker_server.logs import get_logger
from circuit_breaker_server.storage.secret_store import SecretStoreError

__all__ = ["EngineSecrets"]

logger = get_logger("secrets")


@final
class EngineSecrets:
    """See :class:`~circuit_breaker_server.engine.secrets.Secrets`.

    What the store says of itself is for operators, and is logged; a caller is told to try again.

    Example::

        secrets = EngineSecrets(await SecretStore.open(Path("data")))
    """

    def __init__(self, store: Secrets) -> None:
        self._store = store

    def get(self, id: str) -> str | None:  # noqa: A002 (what records call it)
        """Return a secret, ``None`` if there is none of that id."""
        return self._store.get(id)

    async def find(self, id: str) -> str | None:  # noqa: A002 (as above)
        """Return a secret that another server may have put a moment ago; ``None`` if there is none.

        :raises EngineError: ``UNAVAILABLE``.
        """
        with _refusing():
            return await self._store.find(id)

    def api_key(self, id: str, *, base_url: str, tenant: str | None) -> str | None:  # noqa: A002 (as above)
        """Return the operator's key of that id, ``None`` unless this tenant may send it to this address."""
        return self._store.api_key(id, base_url=base_url, tenant=tenant)

    def ids(self) -> list[str]:
        """Return the ids of all secrets that are kept."""
        return self._store.ids()

    async def put(self, id: str, value: str) -> None:  # noqa: A002 (as above)
        """Keep a secret; durable when this returns.

        :raises EngineError: ``UNAVAILABLE``.
        """
        with _refusing():
            await self._store.put(id, value)

    async def remove(self, id: str) -> None:  # noqa: A002 (as above)
        """Forget a secret, if it is there.

        :raises EngineError: ``UNAVAILABLE``.
        """
        with _refusing():
            await self._store.remove(id)


@contextlib.contextmanager
def _refusing() -> Iterator[None]:
    try:
        yield
    except SecretStoreError as error:
        logger.warning("secrets_unavailable", reason=str(error))
        raise EngineError(
            ErrorCode.UNAVAILABLE, "the store of secrets cannot be used at present; try again later"
        ) from error
