"""The caller of an operation: the principal, the address, and the present rights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, final

from circuit_breaker_server.access.audit_lines import NO_AUDIT, Auditor
from circuit_breaker_server.security.authentication import ANYONE, Principal
from circuit_breaker_server.security.policy import Policy, PolicySource
from circuit_breaker_server.security.rights import EVERY_TENANT, EVERYTHING, Rights

__all__ = ["OPEN", "Caller", "Permissions"]


@final
class Permissions:
    """What principals may do now: what the policy says, or everything where there is none.

    Example::

        permissions = Permissions(await PolicySource.open(Path("policy.toml")))
        permissions.rights_of(principal).allows("workflow", "read", "wf_1")
    """

    def __init__(self, source: PolicySource | None = None) -> None:
        self._source = source

    @property
    def version(self) -> str | None:
        """Of the policy in force; ``None`` where there is none."""
        return None if self._source is None else self._source.current.version

    def rights_of(self, principal: Principal) -> Rights:
        """Tell what a principal may do now."""
        return EVERYTHING if self._source is None else self._source.current.rights_of(principal.id)

    def is_disabled(self, principal: Principal) -> bool:
        """Tell whether a principal has lost everything."""
        return self._source is not None and self._source.current.is_disabled(principal.id)

    def on_change(self, callback: Callable[[Policy], object]) -> Callable[[], None]:
        """Call whenever another policy has come into force; what is returned ends that."""
        return (lambda: None) if self._source is None else self._source.on_change(callback)


@final
class Caller:
    """A principal whose rights are looked up each time they are asked for.

    :ivar principal: who asks.
    :ivar address: where from; empty where that is not known.
    :ivar audit: where what he does is written down.

    Example::

        Caller(principal, permissions, address="192.0.2.7").rights
    """

    __slots__ = ("_permissions", "address", "audit", "principal")

    def __init__(
        self, principal: Principal, permissions: Permissions, *, address: str = "", audit: Auditor = NO_AUDIT
    ) -> None:
        self.principal = principal
        self.address = address
        self.audit = audit
        self._permissions = permissions

    @property
    def id(self) -> str:
        """The principal's id."""
        return self.principal.id

    @property
    def rights(self) -> Rights:
        """What he may do now."""
        return self._permissions.rights_of(self.principal)

    @property
    def tenant(self) -> str | None:
        """The one tenant that he is of, ``None`` for none and for every one."""
        tenant = self.rights.tenant
        return None if tenant == EVERY_TENANT else tenant

    @property
    def policy(self) -> str | None:
        """The version of the policy that says so."""
        return self._permissions.version


OPEN: Final = Caller(ANYONE, Permissions())
"""Anybody, where nobody is asked who he is."""
