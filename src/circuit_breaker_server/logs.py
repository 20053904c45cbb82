"""The server's logs, configured in one place: lines on stderr, of ``key=value`` or of JSON.

A logger takes an event's name and facts (ids, counts, codes); payloads, variables and tokens never
become facts.
"""

from __future__ import annotations

import logging
import sys
from typing import TextIO, cast

import structlog
from structlog.typing import FilteringBoundLogger, Processor

__all__ = ["configure", "get_logger"]

_QUIETED = ("uvicorn", "uvicorn.error", "uvicorn.access", "uvicorn.asgi")


class _Stderr:
    """Write to whatever ``sys.stderr`` is at that moment, so that a redirected stream is honoured."""

    def write(self, text: str) -> int:
        return sys.stderr.write(text)

    def flush(self) -> None:
        sys.stderr.flush()


def configure(level: str, style: str = "key=value") -> None:
    """Write the server's logs of ``level`` and above; ``level`` is one of logging's names, lower case.

    The setting holds for the process: the server configured last decides.

    :param style: ``key=value`` or ``json``.
    """
    renderer: Processor
    if style == "json":
        renderer = structlog.processors.JSONRenderer()
    else:
        renderer = structlog.processors.LogfmtRenderer(
            key_order=["timestamp", "level", "event"], bool_as_flag=False
        )
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=structlog.PrintLoggerFactory(cast("TextIO", _Stderr())),
        cache_logger_on_first_use=False,
    )
    for name in _QUIETED:
        # Uvicorn's own lines repeat ours in another form; its errors still reach the root logger.
        logging.getLogger(name).setLevel(logging.ERROR)


def get_logger(component: str) -> FilteringBoundLogger:
    """Return the logger of one component of the server, for example ``gateway``.

    Example::

        get_logger("session").info("closed", remote="127.0.0.1", code=1000)
    """
    return cast("FilteringBoundLogger", structlog.get_logger(component=component))


if not structlog.is_configured():
    configure("warning")
