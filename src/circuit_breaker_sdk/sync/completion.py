"""A completion as it comes, for blocking code."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Self, final

from circuit_breaker_sdk.sync.portal import Portal

if TYPE_CHECKING:  # loaded when a completion is asked for
    from circuit_breaker_sdk.domains import LLMStream
    from circuit_breaker_sdk.events import LLMResponse, LLMStreamChunk

__all__ = ["SyncLLMStream"]


@final
class SyncLLMStream:
    """One completion as it comes: iterate over its chunks, then :meth:`response` has it whole.

    It starts with the first chunk that is asked for. Leaving its block ends the subscription; the completion
    itself goes on.

    Example::

        with client.llm.stream(model="echo", messages=[...]) as stream:
            for chunk in stream:
                print(chunk.content, end="")
            print(stream.response().usage)
    """

    def __init__(self, portal: Portal, make: Callable[[], LLMStream]) -> None:
        self._portal = portal
        self._stream: LLMStream = portal.do(make)

    @property
    def request_id(self) -> str:
        """The id that it is requested under; others may subscribe to it too."""
        return self._stream.request_id

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> LLMStreamChunk:
        """Wait for the next chunk; at the end of a failed completion raise why it failed.

        :raises OperationError: the completion was refused, or failed.
        :raises TransportError, SubscriptionError: the stream cannot be followed.
        """
        chunk = self._portal.call(self._next)
        if chunk is None:
            raise StopIteration
        return chunk

    async def _next(self) -> LLMStreamChunk | None:
        with contextlib.suppress(StopAsyncIteration):
            return await anext(self._stream)
        return None

    def response(self) -> LLMResponse:
        """Return the whole response, with its usage and how it was routed; waits for it.

        :raises OperationError: the completion was refused, or failed.
        :raises ConnectionFailed: no answer came; the stream may have ended well all the same.
        """
        return self._portal.call(self._stream.response)

    def close(self) -> None:
        """End the subscription, and wait no longer for the answer. Idempotent."""
        if not self._portal.is_closed:
            self._portal.call(self._stream.aclose)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
