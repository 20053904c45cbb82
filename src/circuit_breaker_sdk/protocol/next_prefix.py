"""Find the route of a ``next`` message by its first bytes, before anything is decoded.

Servers write every ``next`` of an operation with the same bytes before the payload. Once one such message
went through the full codec, its layout is known, and with it the prefix of every operation whose id has
the same length. A slice and a dictionary look-up then replace decoding the envelope. A message the
routes do not know, or whose remainder is no JSON object, is simply given to the full codec.
"""

from __future__ import annotations

import re
from typing import Final, Generic, TypeVar, final

from circuit_breaker_sdk.protocol.messages import Next

__all__ = ["PrefixRoutes"]

R = TypeVar("R")

# Ids that every JSON encoder writes alike: no quote, backslash, slash, control or non-ASCII character,
# and none of <>&' which encoders made for HTML escape.
_PLAIN_ID: Final = re.compile(r"[A-Za-z0-9_.:~+=@-]+")

# The whole of the text before the payload is matched, so nothing unknown can hide in it: `type` and `id`
# in either order, then `payload`. For such a prefix P and any one JSON value V, P + V + "}" is a message
# with that id and V as its payload, and nothing else: the fast route and the codec cannot disagree.
_W: Final = rb"[ \t\r\n]*"
_TYPE: Final = rb'(?:"type"' + _W + rb":" + _W + rb'"next"' + _W + rb"," + _W + rb")"
_LAYOUT: Final = re.compile(
    rb"(" + _W + rb"\{" + _W + _TYPE + rb'?"id"' + _W + rb":" + _W + rb'")'
    rb"([A-Za-z0-9_.:~+=@-]+)"
    rb'("' + _W + rb"," + _W + _TYPE + rb'?"payload"' + _W + rb":" + _W + rb")"
)


_MAX_LAYOUT_BYTES: Final = 256


@final
class PrefixRoutes(Generic[R]):
    """Routes of a connection's operations, by id and, once learned, by the first bytes of their events.

    The caller inlines the look-up; the attributes are read-only to it:

    :ivar by_id: the routes by the ids of their operations.
    :ivar prefix_length: bytes to cut off the front of a message; 0 while nothing is learned.
    :ivar by_prefix: the routes by exactly that many bytes; empty while nothing is learned.

    Only ids of one length and of plain characters take part; the others stay correct, on the full codec:
    mint ids of equal length.

    Example::

        routes = PrefixRoutes[str]()
        routes.add("1", "prices")
        first = b'{"id":"1","type":"next","payload":{"data":{"price":1}}}'
        routes.learn(first, Next("1", b'{"data":{"price":1}}'))     # after decode_message(first)

        data = b'{"id":"1","type":"next","payload":{"data":{"price":2}}}'
        route = routes.by_prefix.get(data[: routes.prefix_length])  # None: to the full codec
        if route is not None and data.endswith(b"}"):
            payload = data[routes.prefix_length : -1]               # if this is no JSON object: likewise
    """

    __slots__ = ("_head", "_id_length", "_tail", "by_id", "by_prefix", "prefix_length")

    def __init__(self) -> None:
        self.prefix_length: int = 0
        self.by_prefix: dict[bytes, R] = {}
        self.by_id: dict[str, R] = {}
        self._head = b""
        self._tail = b""
        self._id_length = 0

    def __len__(self) -> int:
        return len(self.by_id)

    def add(self, id: str, route: R) -> None:  # noqa: A002 (the protocol's own word)
        """Register a route; one that was registered under the same id is replaced."""
        self.by_id[id] = route
        if self.prefix_length:
            self._add_prefix(id, route)

    def remove(self, id: str, route: R) -> bool:  # noqa: A002 (the protocol's own word)
        """Remove this very route; one that has taken the id over meanwhile stays. Tell whether it was."""
        if self.by_id.get(id) is not route:
            return False
        del self.by_id[id]
        if self.prefix_length:
            self.by_prefix.pop(self._prefix(id), None)
        return True

    def get(self, id: str) -> R | None:  # noqa: A002 (the protocol's own word)
        """Return the route of an operation, or ``None``."""
        return self.by_id.get(id)

    def routes(self) -> tuple[R, ...]:
        """Return all routes in the order of their registration."""
        return tuple(self.by_id.values())

    def learn(self, data: bytes, message: Next) -> None:
        """Learn the server's layout from a message that the full codec has decoded.

        Does nothing while a learned layout still serves an operation, and for a layout that is not plain:
        such servers are served by the codec.

        :param data: the whole text message.
        :param message: what the codec made of it.
        """
        if self.by_prefix:
            return
        match = _LAYOUT.match(data)
        if match is None or data[match.end() :] != message.payload + b"}":
            return
        if match.end() - len(match[2]) > _MAX_LAYOUT_BYTES:
            return  # blanks without end: sizes of payloads are reckoned by it
        self._head, encoded_id, self._tail = match.groups()
        self._id_length = len(encoded_id)
        self.prefix_length = match.end()
        for id_, route in self.by_id.items():
            self._add_prefix(id_, route)

    def _add_prefix(self, id_: str, route: R) -> None:
        if len(id_) == self._id_length and _PLAIN_ID.fullmatch(id_):
            self.by_prefix[self._prefix(id_)] = route

    def _prefix(self, id_: str) -> bytes:
        return self._head + id_.encode("utf-8", "replace") + self._tail
