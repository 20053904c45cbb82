"""The event log on NATS JetStream: one log for many server processes. Needs the extra ``cluster``."""

from circuit_breaker_server.log.jetstream.credentials import read_credentials
from circuit_breaker_server.log.jetstream.log import JetStreamEventLog

__all__ = ["JetStreamEventLog", "read_credentials"]
