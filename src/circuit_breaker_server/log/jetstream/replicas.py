"""Let the streams beside a log have as many replicas as the log has."""

from __future__ import annotations

from circuit_breaker_server.log.jetstream.broker import Broker, Json
from circuit_breaker_server.log.jetstream.errors import ApiError, BrokerUnavailable
from circuit_breaker_server.logs import get_logger

__all__ = ["raise_replicas", "replicas_of"]

_log = get_logger("event_log")


def replicas_of(info: Json) -> int:
    """Return how many brokers keep a stream."""
    return int(info["config"]["num_replicas"])


async def raise_replicas(broker: Broker, info: Json, *, wanted: int, patience_seconds: float) -> Json:
    """Give a stream more replicas where it has fewer; return what is known of it then.

    Whoever made it may have known nothing of the log. While it cannot be done (brokers are away) the stream
    is used as it is, and a warning is logged.
    """
    config = info["config"]
    name, has = config["name"], replicas_of(info)
    if has >= wanted:
        return info
    try:
        raised = await broker.api_patiently(
            f"STREAM.UPDATE.{name}", {**config, "num_replicas": wanted}, patience_seconds=patience_seconds
        )
    except (ApiError, BrokerUnavailable) as error:
        _log.warning(
            "replicas_not_raised",
            stream=f"{broker.url}, stream {name}",
            replicas=has,
            wanted=wanted,
            why=str(error),
            advice="it is lost with that many brokers; the next start tries it again",
        )
        return info
    _log.warning("replicas_raised", stream=f"{broker.url}, stream {name}", replicas=wanted, before=has)
    return raised
