"""Who publishes under idempotency keys, and sends each mutation again until it is answered."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Iterable
from typing import Final, Self, final

import aiohttp
import msgspec

from tests.system.chaos.publishing import Publisher
from tests.system.chaos.result import Result
from tests.system.chaos.world import World

__all__ = ["KeyedPublisher", "judge_keys"]

_DOCUMENT: Final = "mutation Publish($input: ResourceCreateInput!) { createResource(input: $input) { id } }"
_AGAIN: Final = frozenset({"UNAVAILABLE", "TIMEOUT"})
"""What says that the mutation may be sent again under its key."""
_REQUEST_SECONDS: Final = 40.0
_PATIENCE_SECONDS: Final = 90.0
_PAUSE_SECONDS: Final = 0.05


class _Made(msgspec.Struct):
    id: str


class _Data(msgspec.Struct):
    made: _Made | None = msgspec.field(default=None, name="createResource")


class _Extensions(msgspec.Struct, frozen=True):
    code: str | None = None
    may_have_happened: bool = msgspec.field(default=False, name="mayHaveHappened")


class _Error(msgspec.Struct):
    message: str
    extensions: _Extensions = _Extensions()


class _Answer(msgspec.Struct):
    data: _Data | None = None
    errors: list[_Error] = []


@final
class KeyedPublisher(Publisher):
    """As a :class:`Publisher`, with a mutation and a key for each number.

    Each is sent until it is answered; in a lane the next number waits for that.

    :ivar ids: of the resource that the answer names, by number.
    :ivar longest_wait_seconds: the longest from a mutation's first sending to its answer.
    :ivar open_refusals: how many refusals said that the mutation may have happened.
    :ivar sent_again: how many sendings were not the first of their key.
    :ivar wrong: answers that no sending should get.
    :ivar delay_seconds: how long a mutation waits until it is sent again.
    """

    def __init__(self, world: World, *, lanes: int = 8, per_second: float | None = None) -> None:
        super().__init__(world, lanes=lanes, per_second=per_second)
        self.ids: dict[int, str] = {}
        self.longest_wait_seconds = 0.0
        self._longest_since = 0.0
        self.open_refusals = 0
        self.sent_again = 0
        self.wrong: list[str] = []
        self.delay_seconds = _PAUSE_SECONDS
        self._http: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        limit = aiohttp.ClientTimeout(total=_REQUEST_SECONDS)
        self._http = aiohttp.ClientSession(timeout=limit, connector=aiohttp.TCPConnector(limit=0))
        return self

    async def __aexit__(self, *error: object) -> None:
        if self._http is not None:
            await self._http.close()

    def take_longest_wait(self) -> float:
        """Return the longest wait that has ended since this was asked last, in seconds."""
        longest, self._longest_since = self._longest_since, 0.0
        return longest

    async def send_again(self, numbers: Iterable[int]) -> int:
        """Send mutations that were answered once more, under their keys; count them."""
        chosen = list(numbers)
        for begin in range(0, len(chosen), self.lanes):
            await asyncio.gather(*map(self._until_answered, chosen[begin : begin + self.lanes]))
        self.sent_again += len(chosen)
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
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while True:
            id_ = await self._send(number)
            if id_ is not None:
                if self.ids.setdefault(number, id_) != id_:
                    self.wrong.append(f"key {number} was answered with {self.ids[number]}, then with {id_}")
                return True
            if time.monotonic() > deadline:
                self.wrong.append(f"key {number} had no answer in {_PATIENCE_SECONDS:g} s")
                return False
            self.sent_again += 1
            await asyncio.sleep(self.delay_seconds)
            await self.world.server.up.wait()

    async def _send(self, number: int) -> str | None:
        """Send once; return the id of the resource, ``None`` where it has to be sent again."""
        if self._http is None:
            raise RuntimeError("not started")
        made = {"workflowId": self.world.workflow, "data": {"n": number}, "metadata": {}}
        body = {"query": _DOCUMENT, "variables": {"input": {**made, "initialState": "new"}}}
        headers = {"Idempotency-Key": f"chaos-{number}"}
        try:
            async with self._http.post(self.world.server.url, json=body, headers=headers) as response:
                answer = msgspec.json.decode(await response.read(), type=_Answer)
        except (aiohttp.ClientError, TimeoutError, msgspec.DecodeError):
            return None
        if answer.errors:
            error = answer.errors[0]
            self.refusals.append(error.extensions.code)
            self.open_refusals += error.extensions.may_have_happened
            if error.extensions.code not in _AGAIN:
                self.wrong.append(f"key {number}: {error.extensions.code}: {error.message}")
            return None
        return None if answer.data is None or answer.data.made is None else answer.data.made.id


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
    result.require(not publisher.wrong, f"{len(publisher.wrong)} wrong answers: {publisher.wrong[:3]}")
