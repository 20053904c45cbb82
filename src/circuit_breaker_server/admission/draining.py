"""Whether the server is draining: it still serves, and takes on nothing new."""

from __future__ import annotations

from typing import Final, final

__all__ = ["DRAINING", "RETRY_SECONDS", "Draining"]

DRAINING: Final = "the server is draining: it takes on nothing new; try again"
"""The text for a client that comes, or subscribes, while the server drains."""

RETRY_SECONDS: Final = 5
"""The seconds in ``Retry-After`` of what is refused meanwhile."""


@final
class Draining:
    """The switch that all doors of a server look at.

    :ivar is_on: whether the server drains.

    Example::

        draining = Draining()
        draining.begin()
    """

    __slots__ = ("is_on",)

    def __init__(self) -> None:
        self.is_on = False

    def begin(self) -> None:
        """Take on nothing new from here on. Idempotent."""
        self.is_on = True
