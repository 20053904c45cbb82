"""Who asks for what is being done: set where a command comes in, read where a record keeps it."""

from __future__ import annotations

from contextvars import ContextVar
from typing import Final

__all__ = ["ASKER"]

ASKER: Final[ContextVar[str]] = ContextVar("ASKER", default="")
"""The id of the principal; empty for the server itself, and where nobody is asked who he is."""
