"""Moments as the schema writes them."""

from __future__ import annotations

from datetime import UTC, datetime

__all__ = ["parse_timestamp", "timestamp"]


def timestamp(moment: datetime) -> str:
    """Write a moment as RFC 3339: UTC, ``Z``, milliseconds. All such texts sort by time."""
    if moment.tzinfo is not UTC:
        moment = moment.astimezone(UTC)
    return moment.isoformat(timespec="milliseconds").removesuffix("+00:00") + "Z"


def parse_timestamp(text: str) -> datetime:
    """Read what :func:`timestamp` wrote, or any RFC 3339 time with a zone.

    :raises ValueError: it is no time, or has no zone.
    """
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError("a time needs a zone, for example Z")
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        raise ValueError("in UTC it is outside the years 1 to 9999") from None
