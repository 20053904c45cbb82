"""``circuit-breaker cluster``: three nodes on three brokers, killed in turn, judged event by event."""

from circuit_breaker_sdk.cli.cluster.command import cluster

__all__ = ["cluster"]
