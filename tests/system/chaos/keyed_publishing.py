"""Who publishes under idempotency keys, and sends each mutation again until it is answered."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Iterable
from typing import Final, final

import msgspec

from tests.system.chaos.keyed_sending import KeyedSender
from tests.system.chaos.publishing import Publisher
from tests.system.chaos.result import Result
from tests.system.chaos.world import Place

__all__ = ["CREATE", "Created", "KeyedPublisher", "judge_keys"]

CREATE: Final = "mutation Create($input: ResourceCreateInput!) { createResource(input: $input) { id } }"


class _Id(msgspec.Struct):
    id: str


class Created(msgspec.Struct):
    """The answer to :data:`CREATE`."""

    made: _Id = msgspec.field(name="createResource")


@final
class KeyedPublisher(Publisher):
    """As a :class:`Publisher`, with a mutation and a key for each number.

    Each is sent until it is answered; in a lane the next number waits for that.

    :ivar ids: of the resource that the answer names, by number.
    :ivar longest_wait_seconds: the longest from a mutation's first sending to its answer.
    """

    def __init__(
        self, world: Place, sender: KeyedSender, *, lanes: int = 8, per_second: float | None = None
    ) -> None:
        super().__init__(world, lanes=lanes, per_second=per_second)
        self.sender = sender
        self.ids: dict[int, str] = {}
        self.longest_wait_seconds = 0.0
        self._longest_since = 0.0

    def take_longest_wait(self) -> float:
        """Return the longest wait that has ended since this was asked last, in seconds."""
        longest, self._longest_since = self._longest_since, 0.0
        return longest

    async def send_again(self, numbers: Iterable[int]) -> int:
        """Send mutations that were answered once more, under their keys; count them."""
        chosen = list(numbers)
        for begin in range(0, len(chosen), self.lanes):
            await asyncio.gather(*map(self._until_answered, chosen[begin : begin + self.lanes]))
        return len(chosen)

    async def _batch(self, numbers: range) -> None:
        for number in numbers:
            began = self.published_at[number] = time.monotonic()
            if await self._until_answered(number):
                wait = time.monotonic() - began
                self._longest_since = max(self._longest_since, wait)
                self.longest_wait_seconds = max(self.longest_wait_seconds, wait)
                self.acknowledged.add(number)
            else:
                self.unknown.add(number)

    async def _until_answered(self, number: int) -> bool:
        made = {"workflowId": self.world.workflow, "data": {"n": number}, "metadata": {}}
        variables: dict[str, object] = {"input": {**made, "initialState": "new"}}
        answer = await self.sender.until_answered(f"resource-{number}", CREATE, variables)
        if answer is None:
            return False
        self.ids[number] = msgspec.json.decode(answer, type=Created).made.id
        return True


def judge_keys(result: Result, publisher: KeyedPublisher, events: Iterable[tuple[str, int]]) -> None:
    """Require exactly one event of each key, that of the answer; ``events``: ids and numbers in the log."""
    found = list(events)
    times = Counter(number for _, number in found)
    several = sorted(number for number, count in times.items() if count > 1)
    missing = sorted(publisher.acknowledged - times.keys())
    result.require(not several, f"{len(several)} keys have several events: {several[:5]}")
    result.require(not missing, f"{len(missing)} answered keys have no event: {missing[:5]}")
    other = sorted({number for id_, number in found if publisher.ids.get(number, id_) != id_})
    result.require(not other, f"{len(other)} keys have an event that is not their answer's: {other[:5]}")
    wrong = publisher.sender.wrong
    result.require(not wrong, f"{len(wrong)} wrong answers: {wrong[:3]}")
