"""Resume at servers with cursors of their own: a variable and a field of the event, or ``extensions``."""

from __future__ import annotations

import inspect
import re
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from hashlib import blake2b
from typing import Final, Generic, TypeVar, final

import msgspec

from circuit_breaker_sdk.errors import GraphQLError, UsageError
from circuit_breaker_sdk.protocol.messages import Subscribe

__all__ = ["ExtensionSeam", "ResumeBy", "ResumeByExtension", "Seam", "VariableSeam", "names_cursor"]

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

    def check(self, document: str) -> None:
        """Refuse what would fail at the first lost connection only.

        :raises UsageError: the document has no such variable, or ``cursor`` is not a plain function.
        """
        name = str(self.argument)
        if not re.search(rf"\${re.escape(name)}\b", document):
            raise UsageError(
                f"ResumeBy: the document has no variable ${name}: argument is its name, without the dollar"
            )
        cursor: object = self.cursor
        if not callable(cursor) or inspect.iscoroutinefunction(cursor):
            raise UsageError(f"ResumeBy: cursor is a plain function of an event, not {cursor!r:.60}")


@final
class ResumeByExtension(msgspec.Struct, frozen=True):
    """Resume by ``extensions.cursor``, as a draft of 2026 for Cosmo Streams has it: experimental.

    ``extensions`` of the ``subscribe`` ask for ``"delivery-guarantee": "cursor"``; where a connection was
    lost, they hold the ``cursor`` of the last event received as well. ``Subscription.continuity`` and what
    comes twice are as for :class:`ResumeBy`; an event that comes twice with another cursor is not noticed. A
    ``cursor_key`` works, and ``after``. A router that cannot resume answers with
    ``DELIVERY_GUARANTEE_UNSATISFIABLE``, which is a ``GapError``.

    Example::

        client.subscribe("subscription { orders { total } }", resume=ResumeByExtension())
    """


def names_cursor(error: GraphQLError) -> bool:
    """Tell whether an error is about a cursor: there is no code for it that servers share."""
    said = f"{error.message} {error.code or ''}".lower()
    return "cursor" in said or "last-event-id" in said


class Seam(ABC):
    """Where the parts of one subscription join: the last cursor, and those that may come twice."""

    __slots__ = ("_before", "_is_sent", "_looks", "_recent", "last")

    def __init__(self, last: object = None) -> None:
        """``last``: the cursor to begin behind."""
        self.last: object = last
        # Digests: a cursor may be as long as its server likes.
        self._recent: deque[bytes] = deque(maxlen=_REMEMBERED)
        self._before: frozenset[bytes] = frozenset()
        self._looks: int = 0
        self._is_sent: bool = False

    def is_new(self, cursor: object) -> bool:
        """Take the cursor of an event; ``False`` for one that came before the parts joined."""
        digest = blake2b(_encode(cursor), digest_size=16).digest()
        if self._looks:
            self._looks -= 1
            if digest in self._before:
                return False
        self._is_sent = False
        self.last = cursor
        self._recent.append(digest)
        return True

    def resumed(self, request: Subscribe) -> Subscribe:
        """Return the request to subscribe with, behind the last cursor if there is one."""
        if self.last is not None:
            self._is_sent = True
            # What comes twice need not come first: a server may begin before all that it has ever sent.
            self._before, self._looks = frozenset(self._recent), _REMEMBERED
        return self._request(request)

    @abstractmethod
    def _request(self, request: Subscribe) -> Subscribe: ...

    def forget(self) -> None:
        """Begin anew: there is a gap behind the last cursor."""
        self.last, self._is_sent, self._looks = None, False, 0
        self._recent.clear()

    def is_refused(self, errors: Sequence[GraphQLError]) -> bool:
        """Tell whether errors refuse the cursor, where it was sent and nothing new has come since."""
        return self._is_sent and any(map(self._refuses, errors))

    def _refuses(self, error: GraphQLError) -> bool:
        return names_cursor(error)


@final
class VariableSeam(Seam, Generic[T]):
    """The seam of :class:`ResumeBy`. Called with each event, as a filter."""

    __slots__ = ("_rule", "_variables")

    def __init__(self, rule: ResumeBy[T], variables: Mapping[str, object] | None) -> None:
        """``variables`` are those that the application has given."""
        super().__init__()
        self._rule: ResumeBy[T] = rule
        self._variables: dict[str, object] = dict(variables or {})

    def __call__(self, value: T) -> bool:
        cursor = self._rule.cursor(value)
        return cursor is None or self.is_new(cursor)

    def _request(self, request: Subscribe) -> Subscribe:
        given = dict(self._variables)
        if self.last is not None:
            given[self._rule.argument] = msgspec.to_builtins(self.last, enc_hook=str)
        return msgspec.structs.replace(request, variables=given or None)


@final
class ExtensionSeam(Seam):
    """The seam of :class:`ResumeByExtension`."""

    __slots__ = ()

    def _request(self, request: Subscribe) -> Subscribe:
        extensions = {"delivery-guarantee": "cursor"}
        if self.last is not None:
            extensions["cursor"] = str(self.last)
        return msgspec.structs.replace(request, extensions=extensions)

    def _refuses(self, error: GraphQLError) -> bool:
        if error.code == "DELIVERY_GUARANTEE_UNSUPPORTED":
            return False  # no cursor would help
        return error.code == "DELIVERY_GUARANTEE_UNSATISFIABLE" or super()._refuses(error)
