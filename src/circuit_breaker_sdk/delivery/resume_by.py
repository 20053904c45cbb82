"""Resume at servers that take a cursor as a variable and give one in each event."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from hashlib import blake2b
from typing import Final, Generic, TypeVar, final

import msgspec

from circuit_breaker_sdk.errors import GraphQLError

__all__ = ["ResumeBy", "Seam"]

T = TypeVar("T")

_REMEMBERED: Final = 1_024
_encode: Final = msgspec.json.Encoder(order="deterministic", enc_hook=str).encode


@final
class ResumeBy(msgspec.Struct, Generic[T], frozen=True, kw_only=True):
    """Resume by a variable: where a connection was lost, it is set to the cursor of the last event received.

    Events that come twice where the two parts join are left out, and counted as filtered. What such a server
    cannot show is that nothing is missing: ``Subscription.continuity`` says ``resumed``, not ``ok``.

    :ivar argument: the document's variable, without ``$``, that the server's cursor argument is given by.
    :ivar cursor: from an event to its cursor, any JSON value; ``None`` for an event without one.

    Example::

        resume = ResumeBy(argument="after", cursor=lambda event: event["cursor"])
        client.subscribe(
            "subscription($after: String) { orders(after: $after) { cursor total } }", resume=resume
        )
    """

    argument: str
    cursor: Callable[[T], object]


@final
class Seam(Generic[T]):
    """Where the parts of one subscription join: the last cursor, and those that may come twice.

    Called with each event, as a filter: ``False`` for one that came before.
    """

    __slots__ = ("_before", "_is_new", "_looks", "_recent", "_rule", "_variables", "last")

    def __init__(self, rule: ResumeBy[T], variables: Mapping[str, object] | None) -> None:
        """``variables`` are those that the application has given."""
        self._rule = rule
        self._variables = dict(variables or {})
        self.last: object = None
        # Digests: a cursor may be as long as its server likes.
        self._recent: deque[bytes] = deque(maxlen=_REMEMBERED)
        self._before: frozenset[bytes] = frozenset()
        self._looks = 0
        self._is_new = False

    def __call__(self, value: T) -> bool:
        cursor = self._rule.cursor(value)
        if cursor is None:
            return True
        digest = blake2b(_encode(cursor), digest_size=16).digest()
        if self._looks:
            self._looks -= 1
            if digest in self._before:
                return False
        self._is_new = False
        self.last = cursor
        self._recent.append(digest)
        return True

    def resumed(self) -> dict[str, object] | None:
        """Return the variables to subscribe anew with."""
        given = dict(self._variables)
        if self.last is not None:
            self._is_new = True
            # What comes twice need not come first: a server may begin before all that it has ever sent.
            self._before, self._looks = frozenset(self._recent), _REMEMBERED
            given[self._rule.argument] = msgspec.to_builtins(self.last, enc_hook=str)
        return given or None

    def forget(self) -> None:
        """Begin anew: there is a gap behind the last cursor."""
        self.last, self._is_new, self._looks = None, False, 0
        self._recent.clear()

    def is_refused(self, errors: Sequence[GraphQLError]) -> bool:
        """Tell whether errors refuse the cursor, where it was sent and nothing new has come since."""
        return self._is_new and any(
            "cursor" in f"{error.message} {error.code or ''}".lower() for error in errors
        )
