"""Check that a single server syncs to its disk before it acknowledges.

No client of NATS can see this setting; the server's monitoring port shows it.
"""

from __future__ import annotations

import asyncio
import http.client
import json
from contextlib import closing
from typing import Any, Final
from urllib.parse import urlsplit

from circuit_breaker_server.log.event_log import LogError
from circuit_breaker_server.logs import get_logger

__all__ = ["check_sync"]

logger = get_logger("event_log")

_SECONDS: Final = 5.0


async def check_sync(monitoring_url: str | None, *, where: str) -> None:
    """Refuse a server that acknowledges records before they are on its disk.

    Without the URL of the monitoring port (``http://127.0.0.1:8222``) this is a warning only.

    :raises LogError: the server does not sync, or its monitoring port does not answer.
    """
    if monitoring_url is None:
        logger.warning(
            "broker_sync_unknown",
            stream=where,
            advice="it has one replica: its server must run with `sync_interval: always`, or a power cut "
            "loses acknowledged records; name its monitoring port (cluster.monitoring_url) to have this "
            "checked",
        )
        return
    try:
        variables = await asyncio.to_thread(_variables, monitoring_url)
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise LogError(f"{monitoring_url}: the monitoring port does not answer: {error}") from error
    jetstream = variables.get("jetstream") or {}
    if not (jetstream.get("config") or {}).get("sync_always"):
        raise LogError(
            f"{where}: the server acknowledges records before they are on its disk; set "
            "`sync_interval: always` in the jetstream block of its configuration"
        )


def _variables(url: str) -> dict[str, Any]:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("it is no http URL")
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    with closing(kind(parts.hostname, parts.port, timeout=_SECONDS)) as connection:
        connection.request("GET", "/varz")
        variables: dict[str, Any] = json.loads(connection.getresponse().read())
        return variables
