"""The domain of language models: ``client.llm``."""

from __future__ import annotations

import asyncio
import functools
import uuid
from collections.abc import Callable, Coroutine, Sequence
from types import TracebackType
from typing import Self, final

from msgspec import UNSET, UnsetType

from circuit_breaker_sdk.domains.llm_operations import LLMOperations
from circuit_breaker_sdk.domains.llm_streams import LLMStreamSubscription
from circuit_breaker_sdk.errors import OperationError, UsageError
from circuit_breaker_sdk.events.llm import ChatMessageInput, LLMResponse, LLMStreamChunk
from circuit_breaker_sdk.loop_affinity import LoopAffinity

__all__ = ["LLMClient", "LLMStream"]

_AFTER_THE_STREAM = frozenset({"PROVIDER_FAILED", "RATE_LIMITED"})
"""Codes of a completion that failed while it ran: its stream tells so first."""


@final
class LLMStream:
    """One completion as it comes: iterate over its chunks, then :meth:`response` has it whole.

    It starts with the first chunk that is asked for: subscribed first, then requested, so no chunk can be
    missed. Leaving its block, or dropping it, ends the subscription; the completion itself goes on.

    Example::

        async with client.llm.stream(model="echo", messages=[...]) as stream:
            async for chunk in stream:
                print(chunk.content, end="")
            print((await stream.response()).usage)
    """

    def __init__(
        self,
        operations: LLMOperations,
        request: Callable[[], Coroutine[object, object, LLMResponse]],
        *,
        request_id: str,
    ) -> None:
        self.request_id = request_id
        """The id that it is requested under; others may subscribe to it too."""
        self._operations = operations
        self._request = request
        self._starting = asyncio.Lock()
        self._affinity = LoopAffinity()
        self._closed = False
        self._answer: asyncio.Task[LLMResponse] | None = None
        self._subscription: LLMStreamSubscription | None = None
        self._begun = False

    def __aiter__(self) -> Self:
        self._affinity.check()
        return self

    async def __anext__(self) -> LLMStreamChunk:
        """Wait for the next chunk; at the end of a failed completion raise why it failed.

        :raises OperationError: the completion was refused, or failed.
        :raises TransportError, SubscriptionError: the stream cannot be followed.
        """
        subscription = await self._started()
        if not self._begun:
            return await self._first(subscription)
        try:
            return await anext(subscription)
        except StopAsyncIteration:
            await self.response()
            raise

    async def response(self) -> LLMResponse:
        """Return the whole response, with its usage and how it was routed; waits for it.

        :raises OperationError: the completion was refused, or failed.
        :raises ConnectionFailed: no answer came; the stream may have ended well all the same.
        """
        await self._started()
        answer = self._answer
        if answer is None or answer.cancelled():
            raise UsageError("the stream is closed")
        return await asyncio.shield(answer)

    async def _started(self) -> LLMStreamSubscription:
        self._affinity.enter()
        async with self._starting:
            if self._subscription is None:
                if self._closed:
                    raise UsageError("the stream is closed")
                builder = self._operations.subscribe_stream(request_id=self.request_id)
                self._subscription = await builder.subscribe()
                self._answer = asyncio.create_task(
                    self._request(), name=f"circuit-breaker-completion-{self.request_id}"
                )
                # Read here once: nobody may ever ask for the response.
                self._answer.add_done_callback(lambda task: task.cancelled() or task.exception())
            return self._subscription

    async def _first(self, subscription: LLMStreamSubscription) -> LLMStreamChunk:
        """Wait for the first chunk, or for a refusal: then no chunk will come."""
        answer = self._answer
        if answer is None:
            raise UsageError("the stream is closed")
        first = asyncio.create_task(_next(subscription))
        try:
            await asyncio.wait((first, answer), return_when=asyncio.FIRST_COMPLETED)
            if not first.done() and not answer.cancelled():
                error = answer.exception()
                if isinstance(error, OperationError) and error.code not in _AFTER_THE_STREAM:
                    await self.aclose()
                    raise error
            chunk = await first
        finally:
            if not first.done():
                first.cancel()
                await asyncio.wait((first,))
        self._begun = True
        return chunk

    async def aclose(self) -> None:
        """End the subscription, and wait no longer for the answer. Idempotent."""
        self._affinity.check()
        self._closed = True
        if self._subscription is not None:
            await self._subscription.unsubscribe()
        if self._answer is not None and not self._answer.done():
            self._answer.cancel()
            await asyncio.wait((self._answer,))

    async def __aenter__(self) -> Self:
        self._affinity.enter()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()


async def _next(subscription: LLMStreamSubscription) -> LLMStreamChunk:
    return await anext(subscription)


@final
class LLMClient(LLMOperations):
    """Completions, providers, and streams of completions.

    Example::

        messages = [ChatMessageInput(role="user", content="Hello")]
        async for chunk in client.llm.stream(model="echo", messages=messages):
            print(chunk.content, end="")
    """

    def stream(
        self,
        *,
        model: str,
        messages: Sequence[ChatMessageInput],
        temperature: float | UnsetType | None = UNSET,
        max_tokens: int | UnsetType | None = UNSET,
        top_p: float | UnsetType | None = UNSET,
        frequency_penalty: float | UnsetType | None = UNSET,
        presence_penalty: float | UnsetType | None = UNSET,
        stop: Sequence[str] | UnsetType | None = UNSET,
        user: str | UnsetType | None = UNSET,
        project_id: str | UnsetType | None = UNSET,
        request_id: str | None = None,
    ) -> LLMStream:
        """Request a completion and follow it, in one call and without a race; the arguments are those of
        :meth:`chat_completion`.

        :param request_id: made here if it is ``None``. One that was used before is refused with ``CONFLICT``;
            chunks of the earlier completion may come first.
        """
        id_ = str(uuid.uuid4()) if request_id is None else request_id
        request = functools.partial(
            self.chat_completion,
            model=model,
            messages=messages,
            temperature=temperature,
            max_tokens=max_tokens,
            top_p=top_p,
            frequency_penalty=frequency_penalty,
            presence_penalty=presence_penalty,
            stop=stop,
            stream=True,
            user=user,
            project_id=project_id,
            request_id=id_,
        )
        return LLMStream(self, request, request_id=id_)
