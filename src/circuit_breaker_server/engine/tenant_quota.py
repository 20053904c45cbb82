"""Quotas: limit the number of objects of one tenant, and of all tenants together."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator
from typing import final

from circuit_breaker_server.engine.errors import EngineError, ErrorCode, shown

__all__ = ["KeysByTenant", "TenantQuota"]


@final
class KeysByTenant:
    """Count keys by their tenant."""

    def __init__(self) -> None:
        self._tenants: dict[str, str] = {}
        self._counts: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._tenants)

    def put(self, key: str, tenant: str) -> None:
        """Add a key, or give it another tenant."""
        self.remove(key)
        self._tenants[key] = tenant
        self._counts[tenant] += 1

    def remove(self, key: str) -> None:
        """Remove a key, if it is there."""
        tenant = self._tenants.pop(key, None)
        if tenant is not None:
            self._counts[tenant] -= 1
            if not self._counts[tenant]:
                del self._counts[tenant]

    def count(self, tenant: str) -> int:
        """Count the keys of a tenant."""
        return self._counts[tenant]

    def tenant_of(self, key: str) -> str | None:
        """Return the tenant of a key, ``None`` if the key is not there."""
        return self._tenants.get(key)


@final
class TenantQuota:
    """Refuse one more of something where the tenant, or the server, has as many as may be.

    What is being made counts from the moment in which it is asked for, so that many at once do not get past.

    :param name: of what is counted, for messages: ``MCP servers``.
    :param per_tenant: how many one tenant may have.
    :param total: how many all tenants together may have.
    :param count: counts those of a tenant; ``None`` is the operator.
    :param count_all: counts all.
    :param advice: for the message: how to get room.
    :param code: of the refusal.
    :param retry_after: for the refusal, in seconds, where room comes by itself.

    Example::

        quota = TenantQuota("MCP servers", per_tenant=10, total=100, count=count, count_all=count_all)
        with quota.place("acme"):
            await append(made)
    """

    def __init__(
        self,
        name: str,
        *,
        per_tenant: int,
        total: int,
        count: Callable[[str | None], int],
        count_all: Callable[[], int],
        advice: str = "delete one first",
        code: ErrorCode = ErrorCode.INVALID_INPUT,
        retry_after: float | None = None,
    ) -> None:
        self._name = name
        self._per_tenant = per_tenant
        self._total = total
        self._count = count
        self._count_all = count_all
        self._advice = advice
        self._code = code
        self._facts = {} if retry_after is None else {"retryAfter": retry_after}
        self._making: Counter[str | None] = Counter()

    @contextlib.contextmanager
    def place(self, tenant: str | None) -> Iterator[None]:
        """Keep a place for one more of a tenant while it is being made.

        :raises EngineError: as :meth:`require` does.
        """
        self.require(tenant)
        self._making[tenant] += 1
        try:
            yield
        finally:
            self._making[tenant] -= 1
            if not self._making[tenant]:
                del self._making[tenant]

    def require(self, tenant: str | None) -> None:
        """Refuse a tenant that has no place for one more.

        The refusal of a full server tells no tenant how much the others have.

        :raises EngineError: the code given: the tenant has as many as it may; ``UNAVAILABLE``: all have.
        """
        if self._count(tenant) + self._making[tenant] >= self._per_tenant:
            owner = "the operator" if tenant is None else f"tenant {shown(tenant)}"
            raise EngineError(
                self._code,
                f"{owner} has {self._per_tenant} {self._name}, the most it may have; {self._advice}",
                **self._facts,
            )
        if self._count_all() + self._making.total() >= self._total:
            raise EngineError(
                ErrorCode.UNAVAILABLE,
                f"the server takes no more {self._name} at present: nothing was changed; try again later",
            )
