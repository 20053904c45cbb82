"""Limit the share of the server that one tenant or one principal may use."""

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
    :ivar mcp_servers: MCP servers of all tenants.
    :ivar mcp_servers_per_tenant: of one tenant.
    :ivar sign_ins: sign-ins to MCP servers of all tenants that have begun and not ended.
    :ivar sign_ins_per_tenant: to those of one tenant.
    :ivar sessions: active sessions at MCP servers of all tenants.
    :ivar sessions_per_tenant: at those of one tenant.
    :ivar providers: providers of language models of all tenants, the operator's included.
    :ivar providers_per_tenant: of one tenant, and of the operator.
    :ivar creations_per_second: how often one principal may make what lasts: workflows, states, rules,
        agents, their configurations, budgets, providers, MCP servers, sign-ins, sessions. Resources are
        bounded by the rate of operations. ``None``: no bound. Where callers are not known there is none.
    :ivar creations_at_once: how many may come at once, after a pause.
    :ivar completions: completions that run at once.
    :ivar completions_per_principal: of one principal. Where callers are not known, they share all.
    :ivar completions_waiting: how many of one principal wait for their turn; one more is refused.
    :ivar completion_wait_seconds: how long a completion waits for its turn.
    :ivar completion_seconds: how long a completion may take, however slowly its provider answers.
    :ivar runs: attempts of agents' runs at once; a run that waits before its next attempt is none.
    :ivar runs_per_principal: of the runs that one principal has triggered, likewise.
    :ivar runs_waiting: how many of one principal wait for their turn; more are not triggered.
    :ivar run_seconds: how long a run may take, with all its attempts, waits and delays.

    Example::

        ServerSettings(data_dir=Path("data"), caller_limits=CallerLimits(checks_per_tenant=4))
    """

    check_seconds: float = 30.0
    checks: int = 32
    checks_per_tenant: int = 8
    mcp_servers: int = 10_000
    mcp_servers_per_tenant: int = 1_000
    sign_ins: int = 10_000
    sign_ins_per_tenant: int = 1_000
    sessions: int = 100_000
    sessions_per_tenant: int = 10_000
    providers: int = 2_000
    providers_per_tenant: int = 100
    creations_per_second: float | None = 50.0
    creations_at_once: int = 200
    completions: int = 256
    completions_per_principal: int = 32
    completions_waiting: int = 256
    completion_wait_seconds: float = 30.0
    completion_seconds: float = 600.0
    runs: int = 128
    runs_per_principal: int = 16
    runs_waiting: int = 1_000
    run_seconds: float = 3_600.0

    def __post_init__(self) -> None:
        for name in self.__dataclass_fields__:
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"{name} must be greater than 0, not {value}")
