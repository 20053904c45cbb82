"""``circuit-breaker demo``: everything the server streams, in one process, judged event by event."""

from circuit_breaker_sdk.cli.demo.demo import demo

__all__ = ["demo"]
