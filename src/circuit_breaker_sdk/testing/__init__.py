"""For tests of programs that use this SDK, and for our own: what goes wrong on a network, when told to."""

from circuit_breaker_sdk.testing.fault_proxy import Direction, FaultProxy

__all__ = ["Direction", "FaultProxy"]
