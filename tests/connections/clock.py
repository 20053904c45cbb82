"""A clock in seconds that a test sets."""

from __future__ import annotations

__all__ = ["Clock"]


class Clock:
    """Starts at 50 seconds; a test adds to ``now``."""

    def __init__(self) -> None:
        self.now = 50.0

    def __call__(self) -> float:
        return self.now
