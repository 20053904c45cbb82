"""The event log on NATS JetStream: one log for many server processes. Needs the extra ``cluster``."""

from circuit_breaker_server.log.jetstream.copy_target import JetStreamCopy
from circuit_breaker_server.log.jetstream.credentials import read_credentials
from circuit_breaker_server.log.jetstream.log import JetStreamEventLog

__all__ = ["JetStreamCopy", "JetStreamEventLog", "read_credentials"]
