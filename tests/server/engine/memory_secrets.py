"""Secrets in a dict, for tests of what needs a store of secrets."""

from __future__ import annotations

from collections.abc import Mapping


class MemorySecrets:
    """Holds secrets; a key of a provider is a secret like any other."""

    def __init__(self, values: Mapping[str, str] | None = None) -> None:
        self.values = dict(values or {})

    def get(self, id: str) -> str | None:  # noqa: A002 (the port's own)
        return self.values.get(id)

    async def find(self, id: str) -> str | None:  # noqa: A002 (as above)
        return self.values.get(id)

    def api_key(self, id: str, *, base_url: str, tenant: str | None) -> str | None:  # noqa: A002 (as above)
        return self.values.get(id)

    def ids(self) -> list[str]:
        return list(self.values)

    async def put(self, id: str, value: str) -> None:  # noqa: A002 (as above)
        self.values[id] = value

    async def remove(self, id: str) -> None:  # noqa: A002 (as above)
        self.values.pop(id, None)
