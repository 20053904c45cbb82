"""Send mutations under idempotency keys, each until it is answered."""

from __future__ import annotations

import asyncio
import time
from typing import Final, Self, final

import aiohttp
import msgspec

from circuit_breaker_sdk.protocol.positions import HEADER, Positions
from tests.system.chaos.world import Place

__all__ = ["KeyedSender"]

_AGAIN: Final = frozenset({"UNAVAILABLE", "TIMEOUT"})
"""What says that the mutation may be sent again under its key."""
_REQUEST_SECONDS: Final = 40.0
_PATIENCE_SECONDS: Final = 90.0
_PAUSE_SECONDS: Final = 0.05
_LEAKED: Final = "is used by transport"
"""What uvloop says where it believes that a descriptor is in use which was closed with its socket (its issue
653). It happens to aiohttp where a server dies as it is connected to; nothing was sent then."""
_ENDED: Final = b""
"""What stands for an answer where there will be none."""


class _Extensions(msgspec.Struct, frozen=True):
    code: str | None = None
    may_have_happened: bool = msgspec.field(default=False, name="mayHaveHappened")


class _Error(msgspec.Struct):
    message: str
    extensions: _Extensions = _Extensions()


class _Answer(msgspec.Struct):
    data: msgspec.Raw = msgspec.Raw(b"null")
    errors: list[_Error] = []


@final
class KeyedSender:
    """Sends to the server of a world, whichever process that is now.

    :ivar answers: by key; JSON.
    :ivar refusals: the codes of what was refused.
    :ivar open_refusals: how many refusals said that the mutation may have happened.
    :ivar sent_again: how many sendings were not the first of their key.
    :ivar wrong: answers that no sending should get.
    :ivar leaked: how often a new connection was refused by uvloop, see :data:`_LEAKED`.
    :ivar delay_seconds: how long a mutation waits until it is sent again.
    """

    def __init__(
        self,
        world: Place,
        *,
        request_seconds: float = _REQUEST_SECONDS,
        ends_with: frozenset[str] = frozenset(),
    ) -> None:
        """``ends_with``: codes that say that there will be no answer, as is right."""
        self.answers: dict[str, bytes] = {}
        self.refusals: list[str | None] = []
        self.open_refusals = 0
        self.sent_again = 0
        self.wrong: list[str] = []
        self.leaked = 0
        self.delay_seconds = _PAUSE_SECONDS
        self._world = world
        self._request_seconds = request_seconds
        self._ends_with = ends_with
        self._positions = Positions()
        self._http: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        limit = aiohttp.ClientTimeout(total=self._request_seconds)
        self._http = aiohttp.ClientSession(timeout=limit, connector=aiohttp.TCPConnector(limit=0))
        return self

    async def __aexit__(self, *error: object) -> None:
        if self._http is not None:
            await self._http.close()

    async def until_answered(self, key: str, document: str, variables: dict[str, object]) -> bytes | None:
        """Send until there is an answer, the same as at earlier times; ``None``: there never was one."""
        self.sent_again += key in self.answers
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while True:
            answer = await self.send_once(self._world.server.url, key, document, variables)
            if answer == _ENDED:
                return None
            if answer is not None:
                first = self.answers.setdefault(key, answer)
                if first != answer:
                    self.wrong.append(f"{key} was answered with {first!r}, then with {answer!r}")
                return first
            if time.monotonic() > deadline:
                self.wrong.append(f"{key} had no answer in {_PATIENCE_SECONDS:g} s")
                return None
            self.sent_again += 1
            await asyncio.sleep(self.delay_seconds)
            await self._world.server.up.wait()

    async def send_once(
        self, url: str, key: str, document: str, variables: dict[str, object]
    ) -> bytes | None:
        """Send once; return the data of the answer, ``None`` where it has to be sent again."""
        if self._http is None:
            raise RuntimeError("not started")
        body, headers = {"query": document, "variables": variables}, {"Idempotency-Key": key}
        if named := self._positions.named:
            headers[HEADER] = ", ".join(named)
        try:
            async with self._http.post(url, json=body, headers=headers) as response:
                answer = msgspec.json.decode(await response.read(), type=_Answer)
                self._positions.answered(named, response.headers.get(HEADER))
        except (aiohttp.ClientError, TimeoutError, msgspec.DecodeError):
            self._world.server.failed(url)
            return None
        except RuntimeError as broken:
            if _LEAKED not in str(broken):
                raise
            self.leaked += 1
            return None
        if not answer.errors:
            return bytes(answer.data)
        error = answer.errors[0]
        self.refusals.append(error.extensions.code)
        self.open_refusals += error.extensions.may_have_happened
        if error.extensions.code in self._ends_with:
            return _ENDED
        if error.extensions.code not in _AGAIN:
            self.wrong.append(f"{key}: {error.extensions.code}: {error.message}")
        return None
