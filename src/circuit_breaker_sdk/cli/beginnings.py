"""Where ``watch`` begins: now, or in the past."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, final

from circuit_breaker_sdk.cli.streams import AnyBuilder
from circuit_breaker_sdk.errors import UsageError

__all__ = ["NOW", "Beginning"]

_AGO: Final = re.compile(r"(\d{1,9})(s|m|h|d)")
_UNITS: Final = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Beginning:
    """A beginning that was asked for; by default now.

    Example::

        Beginning.of(since="10m").applied(builder)
    """

    begin: Callable[[AnyBuilder], AnyBuilder] | None = None

    @classmethod
    def of(
        cls, *, from_beginning: bool = False, since: str | None = None, last: int | None = None
    ) -> Beginning:
        """Read the options of the command line.

        :param since: a time with a zone, as ``2026-01-31T12:00:00Z``, or how long ago, as ``90s``, ``10m``,
            ``2h`` or ``7d``.
        :raises UsageError: more than one was given, or ``since`` cannot be read.
        """
        if from_beginning + (since is not None) + (last is not None) > 1:
            raise UsageError("--from-beginning, --since and --last: give one of them")
        if from_beginning:
            return cls(begin=lambda builder: builder.from_beginning())
        if last is not None:
            return cls(begin=lambda builder: builder.last(last))
        if since is not None:
            moment = _moment(since)
            return cls(begin=lambda builder: builder.since(moment))
        return cls()

    def applied(self, builder: AnyBuilder) -> AnyBuilder:
        """Let a subscription begin there."""
        return builder if self.begin is None else self.begin(builder)


NOW: Final = Beginning()


def _moment(text: str) -> datetime:
    ago = _AGO.fullmatch(text)
    try:
        if ago is not None:
            return datetime.now(UTC) - timedelta(**{_UNITS[ago[2]]: int(ago[1])})
        moment = datetime.fromisoformat(text)
    except (ValueError, OverflowError):
        moment = None
    if moment is None or moment.tzinfo is None:
        raise UsageError(
            f"--since takes a time with a zone, as 2026-01-31T12:00:00Z, or how long ago, as 10m: {text!r}"
        )
    return moment
