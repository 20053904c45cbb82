"""URLs that a client connects to, each with its circuit breaker."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import final

from circuit_breaker_sdk.config import CircuitBreakerPolicy
from circuit_breaker_sdk.connections.circuit_breaker import CircuitBreaker

__all__ = ["Endpoint", "Endpoints"]


@final
class Endpoint:
    """One URL.

    :ivar url: where WebSockets are opened; with ``/ws`` for ``/graphql`` once that was found to be the place.
    """

    __slots__ = ("breaker", "url")

    def __init__(self, url: str, breaker: CircuitBreaker) -> None:
        self.url: str = url
        self.breaker: CircuitBreaker = breaker

    @property
    def ws_beside_graphql(self) -> str | None:
        """The URL with ``/ws`` in place of a last ``/graphql``; ``None`` where the path ends otherwise."""
        path, question_mark, query = self.url.partition("?")
        if not path.endswith("/graphql"):
            return None
        return path.removesuffix("graphql") + "ws" + question_mark + query


@final
class Endpoints:
    """All URLs of a client, the one that served last in front.

    Example::

        for endpoint in endpoints.allowed(): ...
    """

    __slots__ = ("_all", "_first")

    def __init__(
        self, urls: Sequence[str], policy: CircuitBreakerPolicy, *, clock: Callable[[], float]
    ) -> None:
        self._all = [Endpoint(url, CircuitBreaker(policy, clock=clock)) for url in urls]
        self._first = 0

    def __iter__(self) -> Iterator[Endpoint]:
        return iter(self._all)

    def __len__(self) -> int:
        return len(self._all)

    @property
    def current(self) -> Endpoint:
        """The one that served last; at first the first."""
        return self._all[self._first]

    def allowed(self) -> list[Endpoint]:
        """Return those whose breaker lets an attempt through, from the current one on."""
        ordered = self._all[self._first :] + self._all[: self._first]
        return [endpoint for endpoint in ordered if not endpoint.breaker.wait_seconds()]

    def wait_seconds(self) -> float:
        """Return how long until an attempt is let through."""
        return min(endpoint.breaker.wait_seconds() for endpoint in self._all)

    def move_on(self) -> None:
        """Try the next one first: the one that served last is silent, or has said that it stops."""
        self._first = (self._first + 1) % len(self._all)

    def serves(self, endpoint: Endpoint) -> None:
        """Note where a connection stands."""
        self._first = self._all.index(endpoint)
