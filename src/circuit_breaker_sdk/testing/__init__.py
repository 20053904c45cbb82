"""For tests of programs that use this SDK, and for our own: what goes wrong on a network, when told to."""

from circuit_breaker_sdk.testing.fake_server import FakeRequest, FakeServer
from circuit_breaker_sdk.testing.fault_proxy import Direction, FaultProxy
from circuit_breaker_sdk.testing.manual_clock import ManualClock

__all__ = ["Direction", "FakeRequest", "FakeServer", "FaultProxy", "ManualClock"]
