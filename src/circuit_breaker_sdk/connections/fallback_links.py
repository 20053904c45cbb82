"""Links beside the WebSocket, in order of preference: which of them may carry a subscription now."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Final, final

from circuit_breaker_sdk.connections.interfaces import Link
from circuit_breaker_sdk.errors import ConnectionFailed

__all__ = ["FallbackLinks"]

_FIRST_REST_SECONDS: Final = 0.1
_LOOK_SECONDS: Final = 0.05
_REFUSED_SECONDS: Final = 60.0
"""A refusal may be that of something between, which the next network does not have."""


@final
class FallbackLinks:
    """The links that take the place of a WebSocket.

    :ivar streams: the link for servers that have no WebSockets; ``None`` where the client has none.
    :ivar uses_websocket: whether they stand in for a WebSocket; else they are all there is. It turns false
        where a server is found to have none.
    :ivar have_worked: whether a subscription has been live on one of them.

    Example::

        links = FallbackLinks([streams, polls], rest_seconds=2.0, streams=streams)
        link = links.best()
        links.failed(streams, error, is_refused=False)  # for two seconds it is the polls
    """

    def __init__(
        self,
        links: Sequence[Link],
        *,
        rest_seconds: float,
        streams: Link | None = None,
        uses_websocket: bool = True,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Hold the links.

        :param rest_seconds: for how long at most a link that failed carries nothing new; after the first
            failures in a row it is less.
        :param streams: that of them for servers that have no WebSockets.
        :param uses_websocket: whether they stand in for a WebSocket; else they are all there is.
        """
        self.streams: Link | None = streams
        self.uses_websocket: bool = uses_websocket
        self.have_worked: bool = False
        self._links = tuple(links)
        self._rest_seconds = rest_seconds
        self._clock = clock
        self._resting: dict[int, float] = {}
        self._failures = [0] * len(self._links)
        self._refused: set[int] = set()
        self._excused: Exception | None = None

    def __contains__(self, link: object) -> bool:
        return any(link is each for each in self._links)

    def best(self) -> Link | None:
        """Return the first link that did not fail lately; ``None``: each of them did."""
        now = self._clock()
        for number, link in enumerate(self._links):
            if self._resting.get(number, 0.0) <= now:
                return link
        return None

    async def next(self, seconds: float) -> Link:
        """Return the best link, as soon as one has rested.

        :raises ConnectionFailed: none has in so many seconds.
        """
        until = self._clock() + seconds
        while (link := self.best()) is None:
            if self._clock() >= until:
                raise ConnectionFailed("no transport that the client may use is answered")
            await asyncio.sleep(_LOOK_SECONDS)
        return link

    @property
    def are_refused(self) -> bool:
        """Whether the server, or what is between, has refused each of them when it was tried last."""
        return len(self._refused) == len(self._links)

    def failed(self, link: object, error: Exception, *, is_refused: bool) -> None:
        """Let a link rest, unless it has carried others until this error; a refused one for a minute."""
        for number, each in enumerate(self._links):
            if each is link and error is not self._excused:
                self._failures[number] += 1
                rest_seconds = min(
                    self._rest_seconds, _FIRST_REST_SECONDS * 2 ** (self._failures[number] - 1)
                )
                seconds = _REFUSED_SECONDS if is_refused else rest_seconds
                self._resting[number] = self._clock() + seconds
                (self._refused.add if is_refused else self._refused.discard)(number)

    def proven(self, link: object, error: Exception) -> None:
        """Note that a link had carried something well when it failed: it may be used again at once."""
        self._excused = error
        for number, each in enumerate(self._links):
            if each is link:
                self._resting.pop(number, None)
                self._failures[number] = 0
                self._refused.discard(number)
