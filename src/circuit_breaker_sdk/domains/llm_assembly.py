"""A whole response put together from the chunks of its stream."""

from __future__ import annotations

from collections.abc import Callable
from typing import Self

from circuit_breaker_sdk.events.llm import ChatMessage, LLMChoice, LLMResponse, LLMStreamChunk, TokenUsage
from circuit_breaker_sdk.subscriptions import Subscription

__all__ = ["AssemblingSubscription"]


class AssemblingSubscription(Subscription[LLMStreamChunk]):
    """The pieces of one streamed completion; :meth:`on_complete` gets them put together."""

    def on_complete(self, handler: Callable[[LLMResponse], object]) -> Self:  # type: ignore[override]  # the whole response is what users expect here
        """Call ``handler`` with the whole response when the stream is over, after the last chunk.

        It holds what the stream says: the text, the usage where the stream ended well, and as
        ``finish_reason`` ``error`` where it did not. It counts as a handler of events: chunks that were
        handled before it was attached are not in it.
        """
        parts: list[str] = []
        usage: list[TokenUsage] = []
        failed: list[str] = []
        ids: list[str] = []

        def add(chunk: LLMStreamChunk) -> None:
            parts.append(chunk.content)
            ids.append(chunk.request_id)
            del ids[1:]
            if chunk.usage is not None:
                usage.append(chunk.usage)
            if chunk.error is not None:
                failed.append(chunk.error)

        def complete() -> object:
            message = ChatMessage(role="assistant", content="".join(parts))
            reason = "error" if failed else "stop"
            choice = LLMChoice(index=0, message=message, finish_reason=reason)
            return handler(
                LLMResponse(id=ids[0] if ids else "", choices=(choice,), usage=usage[-1] if usage else None)
            )

        super().on_complete(complete)
        return self.on_data(add)
