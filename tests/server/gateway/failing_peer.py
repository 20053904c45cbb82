"""A peer of the gateway whose calls fail as a test says."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from circuit_breaker_sdk.errors import GraphQLError
from circuit_breaker_server.gateway.gateway import Gateway
from tests.server.gateway.worlds import FakePeer

__all__ = ["Failing"]


class Failing(FakePeer):
    """Raises in the calls that a test names, or does there what the test says.

    :ivar broken: the names of the calls that raise.
    :ivar on_write: called with each write, before it is taken.
    """

    def __init__(self, gateway: Gateway, *broken: str, room: int | None = None) -> None:
        self.broken: tuple[str, ...] = ()
        self.on_write: Callable[[], object] = lambda: None
        super().__init__(gateway, room=room)
        self.broken = broken

    def _maybe_raise(self, call: str) -> None:
        if call in self.broken:
            raise RuntimeError(f"{call} of this peer fails")

    def write(self, frames: bytes) -> None:
        self.on_write()
        self._maybe_raise("write")
        super().write(frames)

    def signal(self, cursors: Sequence[tuple[str, str]]) -> None:
        self._maybe_raise("signal")
        super().signal(cursors)

    def caught_up(self, operation_id: str) -> None:
        self._maybe_raise("caught_up")
        super().caught_up(operation_id)

    def fail(self, operation_id: str, errors: Sequence[GraphQLError]) -> None:
        self._maybe_raise("fail")
        super().fail(operation_id, errors)

    def drop(self) -> None:
        super().drop()
        self._maybe_raise("drop")
