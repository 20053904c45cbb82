"""Settings of rates: how often one principal or address may connect, subscribe, poll and ask."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

__all__ = ["RateSettings"]


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class RateSettings:
    """Limit the rates of one principal, or of one address without authentication; ``None``: no limit.

    :ivar connects_per_second: sockets, by address.
    :ivar subscribes_per_second: subscriptions begun or resumed.
    :ivar operations_per_second: queries and mutations.
    :ivar polls_per_second: polls.
    :ivar values_per_second: values that answers may have, as ``DocumentLimits.max_cost`` estimates them, of
        operations with more than 1,000, where callers are known; a document that has to be parsed counts one
        for two characters. Four
        seconds of it can be saved up.
    :ivar frames_per_second: frames that one socket sends, pings included, 100 at least. Above it the server
        reads the socket more slowly; 100 may come at once. A subscription takes two frames: its request, and
        the answer to its live signal.
    :ivar events_per_second: events of one subscription. Above it the stream is slowed and nothing is lost. A
        subscription may save up one second's events: any second holds twice the number at most. Polls of one
        caller for the same subscription share this allowance.

    Example::

        RateSettings(operations_per_second=100, events_per_second=1_000)
    """

    connects_per_second: int | None = 500
    subscribes_per_second: int | None = 5_000
    operations_per_second: int | None = 2_000
    polls_per_second: int | None = 2_000
    values_per_second: int | None = 100_000
    frames_per_second: int | None = 5_000
    events_per_second: int | None = None

    def __post_init__(self) -> None:
        for name in self.__dataclass_fields__:
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"{name} must be greater than 0, not {value}; None sets no limit")
        if self.frames_per_second is not None and self.frames_per_second < 100:
            raise ValueError(
                f"frames_per_second must be 100 at least, not {self.frames_per_second}: sockets would be "
                "read so seldom that they seem dead; None sets no limit"
            )
