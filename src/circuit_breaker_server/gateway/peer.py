"""The interface of the session that a feed writes to, and how much one write may carry."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, Protocol, TypeAlias, final

from circuit_breaker_sdk.errors import GraphQLError

__all__ = ["MAX_WRITE_BYTES", "NO_PEER", "Frame", "Peer"]

MAX_WRITE_BYTES: Final = 256 * 1024
"""After this much a peer waits for the next turn, so that one write stays of bounded size."""

Frame: TypeAlias = Callable[[int, Sequence[bytes]], Sequence[bytes]]
"""From the length of an operation's prefix and its payloads to the pieces that the prefix stands between.

``prefix.join(pieces)`` is what a socket is given: one copy of the bytes, however many events there are.
"""


class Peer(Protocol):
    """The interface of the session that a feed writes to. A peer that raises is ended; the others go on."""

    def write(self, frames: bytes) -> None:
        """Write to the socket, at once."""
        ...

    def signal(self, cursors: Sequence[tuple[str, str]]) -> None:
        """Tell for each operation id the cursor up to which nothing is missed (the live signal)."""
        ...

    def caught_up(self, operation_id: str) -> None:
        """Hear that an operation that was behind has nothing more to be sent, for now."""
        ...

    def fail(self, operation_id: str, errors: Sequence[GraphQLError]) -> None:
        """End one operation with errors."""
        ...

    def complete(self, operation_id: str) -> None:
        """End one operation: its stream is over."""
        ...

    def drop(self) -> None:
        """End the peer with all its operations: the server failed while it served this peer."""
        ...


@final
class _NoPeer:
    """The peer of a closed feed, which would else hold its session, and that the feed: a circle."""

    def write(self, frames: bytes) -> None: ...

    def signal(self, cursors: Sequence[tuple[str, str]]) -> None: ...

    def caught_up(self, operation_id: str) -> None: ...

    def fail(self, operation_id: str, errors: Sequence[GraphQLError]) -> None: ...

    def complete(self, operation_id: str) -> None: ...

    def drop(self) -> None: ...


NO_PEER: Final[Peer] = _NoPeer()
