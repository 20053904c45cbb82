"""The server's logs, configured in one place: lines on stderr, of ``key=value`` or of JSON.

A logger takes an event's name and facts (ids, counts, codes); payloads, variables and tokens never
become facts.
"""

from __future__ import annotations

import contextlib
import logging
import sys
import threading
import warnings
from collections.abc import Iterator
from types import TracebackType
from typing import TextIO, cast

import structlog
from structlog.typing import FilteringBoundLogger, Processor

__all__ = ["configure", "get_logger", "is_enabled", "process_lines"]

_QUIETED = ("uvicorn", "uvicorn.error", "uvicorn.access", "uvicorn.asgi")

_level = logging.WARNING


class _LibraryLines(logging.Handler):
    """Write what libraries log through :mod:`logging` as lines of ours."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            logger = get_logger(record.name)
            # Not the arguments by name: they are of the library, and may be anything.
            logger.log(record.levelno, "library", text=record.getMessage(), exc_info=record.exc_info or None)
        except Exception:  # noqa: BLE001 (a logger must not end what it tells of)
            self.handleError(record)


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
    global _level  # noqa: PLW0603 (of the process, as structlog's own settings)
    _level = logging.getLevelNamesMapping()[level.upper()]
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
        wrapper_class=structlog.make_filtering_bound_logger(_level),
        logger_factory=structlog.PrintLoggerFactory(cast("TextIO", _Stderr())),
        cache_logger_on_first_use=False,
    )
    for name in _QUIETED:
        # Uvicorn's own lines repeat ours in another form; its errors still reach the root logger.
        logging.getLogger(name).setLevel(logging.ERROR)


def is_enabled(level: str) -> bool:
    """Tell whether lines of a level are written: where they are not, their facts need not be found out.

    :param level: one of logging's names, lower case.
    """
    return _LEVELS[level] >= _level


@contextlib.contextmanager
def process_lines() -> Iterator[None]:
    """Write every line of this process's stderr in the server's format, until the block has ended.

    These are lines of libraries, warnings of Python and exceptions that no code has caught, that of the block
    among them. It is for a program that is the server; one that embeds a server keeps its own
    configuration of :mod:`logging`.
    """
    root, handler = logging.getLogger(), _LibraryLines(logging.WARNING)
    before = warnings.showwarning, sys.excepthook, sys.unraisablehook, threading.excepthook
    if not root.handlers:
        root.addHandler(handler)
    warnings.showwarning, sys.excepthook = _show_warning, _on_uncaught
    sys.unraisablehook, threading.excepthook = _on_unraisable, _on_thread_failure
    yield
    # Not after an exception: it ends the process, which tells it by these.
    root.removeHandler(handler)
    warnings.showwarning, sys.excepthook, sys.unraisablehook, threading.excepthook = before


def _show_warning(  # noqa: PLR0917 (as warnings.showwarning)
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    del file, line
    logger.warning("python_warning", text=str(message), category=category.__name__, at=f"{filename}:{lineno}")


def _on_uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        return
    logger.critical("uncaught", exc_info=(kind, error, trace))


def _on_unraisable(failure: sys.UnraisableHookArgs) -> None:
    error = failure.exc_value
    logger.error("unraisable", exc_info=error if isinstance(error, Exception) else None)


def _on_thread_failure(failure: threading.ExceptHookArgs) -> None:
    error = failure.exc_value
    logger.error("thread_failed", exc_info=error if isinstance(error, Exception) else None)


def get_logger(component: str) -> FilteringBoundLogger:
    """Return the logger of one component of the server, for example ``gateway``.

    Example::

        get_logger("session").info("closed", remote="127.0.0.1", code=1000)
    """
    return cast("FilteringBoundLogger", structlog.get_logger(component=component))


_LEVELS = {name.lower(): number for name, number in logging.getLevelNamesMapping().items()}

logger = get_logger("process")

if not structlog.is_configured():
    configure("warning")
