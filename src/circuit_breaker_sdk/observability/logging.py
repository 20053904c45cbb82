"""The SDK's logger: short names of what happened, facts as fields, nothing per event.

Every record of the logger ``circuit_breaker_sdk`` has ``extra`` fields (``subscription_id``, ``url``,
``seconds`` …) for a structured formatter; no field ever holds a payload, a variable's value or a
credential. Subscriptions log at INFO (WARNING for failures); connections and timings at DEBUG. Slow handlers
and late calls of them are logged at WARNING, where :meth:`Client.measure_latency` was given their limits.
"""

from __future__ import annotations

import logging
from typing import Final

__all__ = ["log", "logger"]

logger: Final = logging.getLogger("circuit_breaker_sdk")
# The library's convention: silent until the application configures logging.
logger.addHandler(logging.NullHandler())


def log(level: int, what: str, **fields: object) -> None:
    """Log ``what`` with its facts, once as text (``key=value``) and once as fields of the record.

    Costs nothing where the level is off. Field names must not be attributes of
    :class:`logging.LogRecord`, such as ``name`` or ``message``.
    """
    if logger.isEnabledFor(level):
        facts = {name: value for name, value in fields.items() if value is not None}
        text = "".join(f" {name}={_on_one_line(value)}" for name, value in facts.items())
        # stacklevel: the record names the caller, not this function.
        logger.log(level, "%s%s", what, text, extra=facts, stacklevel=2)


def _on_one_line(value: object) -> str:
    """Write a value so that what a server says cannot begin a line of its own, nor command a terminal."""
    text = str(value)
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
