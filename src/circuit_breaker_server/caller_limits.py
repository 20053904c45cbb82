"""How much of the server one tenant or one principal may take from the others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

__all__ = ["CallerLimits"]


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class CallerLimits:
    """The shares of tenants and principals in what all of them use.

    A share is smaller than the whole, so that one tenant or principal cannot use the whole up alone.

    :ivar check_seconds: the longest timeout that a caller may set for a check of an MCP server. A server that
        was configured with more is checked with this one.
    :ivar checks: checks of MCP servers on the interval at once; and as many that callers ask for.
    :ivar checks_per_tenant: of one tenant's MCP servers, likewise.

    Example::

        ServerSettings(data_dir=Path("data"), caller_limits=CallerLimits(checks_per_tenant=4))
    """

    check_seconds: float = 30.0
    checks: int = 32
    checks_per_tenant: int = 8

    def __post_init__(self) -> None:
        for name in self.__dataclass_fields__:
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be greater than 0, not {getattr(self, name)}")
