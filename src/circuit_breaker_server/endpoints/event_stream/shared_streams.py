"""Streams that many operations share (the single connection mode of graphql-sse), and their reservations."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from typing import Final, final

from circuit_breaker_server.access.caller import Caller
from circuit_breaker_server.endpoints.event_stream.event_frames import SharedFrames
from circuit_breaker_server.endpoints.event_stream.event_stream import EventStream
from circuit_breaker_server.endpoints.event_stream.stream_registry import EventStreams

__all__ = ["SharedStream", "SharedStreams"]

_RESERVED_SECONDS: Final = 30.0
_MAX_RESERVED_LATELY: Final = 100


@final
class SharedStream:
    """One reserved stream: not yet open, or open with its operations.

    :ivar token: the ticket to it, a secret of its client.
    :ivar caller: the caller that reserved it; no other principal may use it.

    Example::

        shared = streams.reserve(caller)
        shared.reserve_id("1")
        shared.run("1", answer)
    """

    def __init__(self, caller: Caller) -> None:
        self.token = secrets.token_urlsafe(32)
        self.caller = caller
        self.stream: EventStream | None = None
        self._opened = asyncio.Event()
        self._ids: set[str] = set()
        self._tasks: dict[str, asyncio.Task[None]] = {}

    @property
    def operations(self) -> int:
        """The number of operations in use."""
        return len(self._ids) + (0 if self.stream is None else self.stream.subscriptions)

    def begun(self, stream: EventStream) -> None:
        """Note that its connection is open."""
        self.stream = stream
        self._opened.set()

    async def opened(self, *, seconds: float) -> EventStream | None:
        """Wait for its connection; ``None``: it was not opened in time."""
        try:
            async with asyncio.timeout(seconds):
                await self._opened.wait()
        except TimeoutError:
            return None
        return self.stream

    def reserve_id(self, operation_id: str) -> bool:
        """Take an id before the operation is read; ``False``: it is in use."""
        if operation_id in self._ids or (self.stream is not None and self.stream.subscribes(operation_id)):
            return False
        self._ids.add(operation_id)
        return True

    def release_id(self, operation_id: str) -> bool:
        """Give an id back; ``False``: the operation was stopped meanwhile."""
        if operation_id not in self._ids:
            return False
        self._ids.discard(operation_id)
        return True

    def is_running(self, operation_id: str) -> bool:
        """Tell whether an id has a query or mutation that is executed."""
        return operation_id in self._tasks

    def run(self, operation_id: str, answer: Callable[[], Awaitable[bytes]]) -> None:
        """Execute a query or mutation beside the request that asked for it; its id was reserved.

        :param answer: may not raise.
        """

        async def send() -> None:
            payload = await answer()
            if self.release_id(operation_id) and self.stream is not None:
                self.stream.result(operation_id, payload)

        task = self._tasks[operation_id] = asyncio.get_running_loop().create_task(send())
        task.add_done_callback(lambda done: self._done(operation_id, done))

    def _done(self, operation_id: str, task: asyncio.Task[None]) -> None:
        # By now the id may be a successor's.
        if self._tasks.get(operation_id) is task:
            del self._tasks[operation_id]

    def stop(self, operation_id: str) -> None:
        """End an operation; nothing happens for an unknown id."""
        self._ids.discard(operation_id)
        task = self._tasks.pop(operation_id, None)
        if task is not None:
            task.cancel()
        if self.stream is not None:
            self.stream.unsubscribe(operation_id)

    async def aclose(self) -> None:
        """Cancel its queries and mutations, and await them."""
        tasks = list(self._tasks.values())
        self._ids.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@final
class SharedStreams:
    """All reserved streams, by their token.

    Example::

        shared = streams.reserve(caller)
        streams.find(shared.token, caller)
    """

    def __init__(self, streams: EventStreams) -> None:
        self._streams = streams
        self._reserved: dict[str, SharedStream] = {}
        self._lately: dict[str, int] = {}
        self._ending: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        """The number of reserved streams, open or not."""
        return len(self._reserved)

    def reserve(self, caller: Caller) -> SharedStream | None:
        """Reserve a stream, to be opened in 30 s; ``None``: its caller has made a hundred in this time."""
        key = caller.id or caller.address
        if self._lately.get(key, 0) >= _MAX_RESERVED_LATELY:
            return None
        shared = SharedStream(caller)
        self._reserved[shared.token] = shared
        self._lately[key] = self._lately.get(key, 0) + 1
        asyncio.get_running_loop().call_later(_RESERVED_SECONDS, self._expire, shared, key)
        return shared

    def find(self, token: str, caller: Caller | None = None) -> SharedStream | None:
        """Return the stream of a token; ``None``: there is none, or it is another principal's."""
        shared = self._reserved.get(token)
        if shared is None or (caller is not None and shared.caller.principal.id != caller.principal.id):
            return None
        return shared

    def admit(self, shared: SharedStream, *, resume: bool, traces: bool = False) -> EventStream | None:
        """Make the connection of a reserved stream, to be begun or aborted; ``None``: there are too many."""
        frames = SharedFrames(resume=resume)
        shared.stream = self._streams.admit(
            shared.caller,
            frames,
            ends_with_last=False,
            on_end=lambda _: self._end(shared),
            traces=resume and traces,
        )
        return shared.stream

    def _expire(self, shared: SharedStream, key: str) -> None:
        left = self._lately[key] - 1
        if left:
            self._lately[key] = left
        else:
            del self._lately[key]
        if shared.stream is None:
            self._end(shared)

    def _end(self, shared: SharedStream) -> None:
        self._reserved.pop(shared.token, None)
        task = asyncio.get_running_loop().create_task(shared.aclose())
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    async def aclose(self) -> None:
        """Forget every reservation, once the streams are closed; await what is still executed."""
        for shared in list(self._reserved.values()):
            self._end(shared)
        while self._ending:
            await asyncio.wait(self._ending)
