"""What an attack raises that has worked."""

from __future__ import annotations

__all__ = ["Breach", "must"]


class Breach(Exception):
    """An attack has worked, in part or whole."""


def must(holds: object, otherwise: str) -> None:
    """:raises Breach: it does not hold."""
    if not holds:
        raise Breach(otherwise)
