"""Who publishes, and remembers what was acknowledged: the judge's truth."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from circuit_breaker_sdk import OperationError, TransportError
from tests.system.chaos.world import Place

__all__ = ["BATCH", "Publisher"]

BATCH = 10
_DOCUMENT = (
    "mutation Publish("
    + ", ".join(f"$i{k}: ResourceCreateInput!" for k in range(BATCH))
    + ") { "
    + " ".join(f"e{k}: createResource(input: $i{k}) {{ id }}" for k in range(BATCH))
    + " }"
)


class Publisher:
    """Creates numbered resources from several lanes side by side; in each lane the numbers grow.

    :ivar acknowledged: numbers whose mutation was answered: they happened.
    :ivar unknown: numbers whose answer never came: each happened whole or not at all.
    :ivar refusals: the codes of mutations that the server refused.
    """

    def __init__(
        self, world: Place, *, lanes: int = 8, per_second: float | None = None, size: int = 0
    ) -> None:
        """``per_second``: at most so many events; ``size``: bytes that each carries besides its number."""
        self.world = world
        self.lanes = lanes
        self.acknowledged: set[int] = set()
        self.unknown: set[int] = set()
        self.refusals: list[str | None] = []
        self.started = time.monotonic()
        self.published_at: dict[int, float] = {}
        self._padding = "x" * size
        self._next = 0
        self.per_second = per_second
        self._stop = False

    async def publish(self, count: int | None = None) -> None:
        """Publish so many events, or until :meth:`stop`; when this returns every answer is here."""
        self._stop = False
        self.started = time.monotonic()
        end = None if count is None else self._next + count
        begin = self._next
        await asyncio.gather(*(self._lane(begin, end) for _ in range(self.lanes)))

    def stop(self) -> None:
        """End :meth:`publish` after what is under way."""
        self._stop = True

    @property
    def count(self) -> int:
        """How many numbers were given out."""
        return self._next

    async def _lane(self, begin: int, end: int | None) -> None:
        while not self._stop and (end is None or self._next < end):
            numbers = range(self._next, self._next + BATCH)
            self._next += BATCH
            if self.per_second is not None:
                due = self.started + (numbers[0] - begin) / self.per_second
                await asyncio.sleep(max(0.0, due - time.monotonic()))
            await self.world.server.up.wait()
            await self._batch(numbers)

    async def _batch(self, numbers: range) -> None:
        variables: dict[str, object] = {
            f"i{k}": {
                "workflowId": self.world.workflow,
                "data": {"n": n, "text": self._padding},
                "metadata": {},
                "initialState": "new",
            }
            for k, n in enumerate(numbers)
        }
        now = time.monotonic()
        self.published_at.update(dict.fromkeys(numbers, now))
        try:
            await self.world.direct.execute(_DOCUMENT, variables, type=dict[str, Any])
        except OperationError as error:
            # The server answered, but not for all of them.
            self.refusals.append(error.code)
            self.unknown.update(numbers)
            await asyncio.sleep(0.05)
        except TransportError:
            self.unknown.update(numbers)
            await asyncio.sleep(0.05)
        else:
            self.acknowledged.update(numbers)
