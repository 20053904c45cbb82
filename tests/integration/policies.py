"""Recovery policies of the integration tests: try again soon, never open the circuit breaker."""

from __future__ import annotations

from typing import Final

from circuit_breaker_sdk import CircuitBreakerPolicy, ErrorRecoveryPolicy

__all__ = ["NEVER_OPEN", "SOON"]

NEVER_OPEN: Final = CircuitBreakerPolicy(failure_threshold=1_000_000)
SOON: Final = ErrorRecoveryPolicy(base_delay=0.01, max_delay=0.05)
