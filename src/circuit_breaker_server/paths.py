"""The paths at which the server answers: the same for WebSockets and for HTTP."""

from __future__ import annotations

from typing import Final

__all__ = ["OPERATION_PATHS", "POLL_PATHS", "STREAM_PATHS"]

OPERATION_PATHS: Final = ("/graphql", "/graphql/", "/ws", "/")
"""The paths of operations: WebSocket upgrades and HTTP ``POST``."""

POLL_PATHS: Final = ("/graphql/poll", "/poll")
"""The paths of long polls: a client adds ``/poll`` to the path that it was given."""

STREAM_PATHS: Final = ("/graphql/stream", "/stream")
"""The paths of event streams only; a client may also ask for one at :data:`OPERATION_PATHS`."""
