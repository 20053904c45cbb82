"""Callers: principals with their address and their current rights."""

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
    """Look up the current rights of principals: those of the policy, or all rights without one.

    Example::

        permissions = Permissions(await PolicySource.open(Path("policy.toml")))
        permissions.rights_of(principal).allows("workflow", "read", "wf_1")
    """

    def __init__(self, source: PolicySource | None = None) -> None:
        self._source = source

    @property
    def version(self) -> str | None:
        """The version of the policy in force; ``None`` without a policy."""
        return None if self._source is None else self._source.current.version

    def rights_of(self, principal: Principal) -> Rights:
        """Return the current rights of a principal."""
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

    :ivar principal: the authenticated principal.
    :ivar address: their network address; empty where it is not known.
    :ivar audit: writes their actions to the audit log.

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
        """The current rights of the principal."""
        return self._permissions.rights_of(self.principal)

    @property
    def tenant(self) -> str | None:
        """The tenant of the principal; ``None`` if they have none, or all."""
        tenant = self.rights.tenant
        return None if tenant == EVERY_TENANT else tenant

    @property
    def policy(self) -> str | None:
        """The version of the policy in force; ``None`` without a policy."""
        return self._permissions.version


OPEN: Final = Caller(ANYONE, Permissions())
"""Every caller of a server without authentication."""
