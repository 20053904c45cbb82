"""The secrets of a cluster, in its bucket."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Final, final

from circuit_breaker_server.shared.bucket import Bucket
from circuit_breaker_server.shared.entries import BucketError
from circuit_breaker_server.storage.provider_keys import provider_key
from circuit_breaker_server.storage.secret_store import SecretStoreError

__all__ = ["BucketSecrets"]

_KIND: Final = "secret"


@final
class BucketSecrets:
    """Secrets by id, which all nodes read and write; encrypted under the cluster key.

    A node writes a secret before the record that names it. Another node may see the record before the
    secret: whoever acts on a record of another node has to await :meth:`find`, where it is enough for others
    to :meth:`get`. ``repr`` shows no value.

    Example::

        secrets = BucketSecrets(await Bucket.open(settings.cluster, cluster_key))
        await secrets.put("mcp-client-1", "…")
    """

    def __init__(self, bucket: Bucket) -> None:
        """Keep them in an open bucket, which the caller closes."""
        self._bucket = bucket

    def get(self, id: str) -> str | None:  # noqa: A002 (what records call it)
        """Return a secret of the local copy, ``None`` if there is none of that id.

        What another node wrote a moment ago may be missing in the copy, or still be as it was before.
        """
        return _text(self._bucket.get(_KIND, id))

    async def find(self, id: str) -> str | None:  # noqa: A002 (as above)
        """Return a secret; the broker is asked before there is said to be none.

        For whoever follows a record that may be of another node: runs of agents, checks and sessions of MCP
        servers, sign-ins that began elsewhere.

        :raises SecretStoreError: it is not in the local copy, and the broker does not answer.
        """
        value = self._bucket.get(_KIND, id)
        if value is None:
            try:
                found = await self._bucket.find(_KIND, id)
            except BucketError as error:
                raise SecretStoreError(str(error)) from error
            value = None if found is None else found.value
        return _text(value)

    def api_key(
        self,
        id: str,  # noqa: A002 (as above)
        *,
        base_url: str,
        tenant: str | None,
        environment: Mapping[str, str] = os.environ,
    ) -> str | None:
        """Return a provider's key of this node's environment.

        See :func:`~circuit_breaker_server.storage.provider_keys.provider_key`.
        """
        return provider_key(id, base_url=base_url, tenant=tenant, environment=environment)

    def ids(self) -> list[str]:
        """Return the ids of all secrets of the local copy."""
        return list(self._bucket.items(_KIND))

    async def put(self, id: str, value: str) -> None:  # noqa: A002 (as above)
        """Keep a secret, replacing the one before; the brokers have stored it when this returns.

        :raises SecretStoreError: it cannot be said to be stored; the broker may be away.
        """
        try:
            await self._bucket.put(_KIND, id, value.encode())
        except BucketError as error:
            raise SecretStoreError(str(error)) from error

    async def remove(self, id: str) -> None:  # noqa: A002 (as above)
        """Forget a secret, if it is there; durable when this returns.

        :raises SecretStoreError: that cannot be said; the broker may be away.
        """
        if await self.find(id) is None:
            return
        try:
            await self._bucket.remove(_KIND, id)
        except BucketError as error:
            raise SecretStoreError(str(error)) from error

    def __repr__(self) -> str:
        return f"<BucketSecrets {self._bucket!r}>"


def _text(value: bytes | None) -> str | None:
    return None if value is None else value.decode()
