"""The paths at which the server answers: the same for WebSockets and for HTTP."""

from __future__ import annotations

from typing import Final

__all__ = [
    "FORMAT_PATH",
    "HEALTH_PATH",
    "HEALTH_PATHS",
    "LIVE_PATH",
    "OPERATION_PATHS",
    "POLL_PATHS",
    "READY_PATH",
    "STREAM_PATHS",
]

HEALTH_PATH: Final = "/health"
LIVE_PATH: Final = "/health/live"
READY_PATH: Final = "/health/ready"

HEALTH_PATHS: Final = (HEALTH_PATH, LIVE_PATH, READY_PATH)
"""The paths of the server's health, which are answered also while it drains."""

FORMAT_PATH: Final = "/nodes/format"
"""The path at which an administrator raises the format of the event log."""

OPERATION_PATHS: Final = ("/graphql", "/graphql/", "/ws", "/")
"""The paths of operations: WebSocket upgrades and HTTP ``POST``."""

POLL_PATHS: Final = ("/graphql/poll", "/poll")
"""The paths of long polls: a client adds ``/poll`` to the path that it was given."""

STREAM_PATHS: Final = ("/graphql/stream", "/stream")
"""The paths of event streams only; a client may also ask for one at :data:`OPERATION_PATHS`."""
