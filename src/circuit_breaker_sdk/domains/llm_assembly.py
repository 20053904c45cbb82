"""A whole response put together from the chunks of its stream."""

from __future__ import annotations

from collections.abc import Callable
from typing import Self, final

from circuit_breaker_sdk.events.llm import ChatMessage, LLMChoice, LLMResponse, LLMStreamChunk, TokenUsage
from circuit_breaker_sdk.subscriptions import Subscription

__all__ = ["AssemblingSubscription"]


class AssemblingSubscription(Subscription[LLMStreamChunk]):
    """The pieces of one streamed completion; :meth:`on_complete` gets them put together."""

    __slots__ = ("_assembly",)

    def on_data(self, handler: Callable[[LLMStreamChunk], object]) -> Self:
        """See :meth:`Subscription.on_data`."""
        self._assembled()
        return super().on_data(handler)

    def on_complete(self, handler: Callable[[LLMResponse], object]) -> Self:  # type: ignore[override]  # the whole response is what users expect here
        """Call ``handler`` with the whole response when the stream is over, after the last chunk.

        It holds what the stream says: the text, the usage where the stream ended well, and as
        ``finish_reason`` ``error`` where it did not. It counts as a handler of events: the response is put
        together of the chunks that the subscription's handlers have got, whenever this one was attached.
        """
        assembly = self._assembled()
        super().on_complete(lambda: handler(assembly.response()))
        return self

    def _assembled(self) -> _Assembly:
        """Return what puts the chunks together: it is the first handler of events."""
        found: _Assembly | None = getattr(self, "_assembly", None)
        if found is None:
            found = self._assembly = _Assembly()
            super().on_data(found.add)
        return found


@final
class _Assembly:
    """The chunks of a stream so far."""

    def __init__(self) -> None:
        self._id = ""
        self._parts: list[str] = []
        self._usage: TokenUsage | None = None
        self._has_failed = False

    def add(self, chunk: LLMStreamChunk) -> None:
        """Add the next chunk."""
        self._id = self._id or chunk.request_id
        self._parts.append(chunk.content)
        self._usage = self._usage if chunk.usage is None else chunk.usage
        self._has_failed = self._has_failed or chunk.error is not None

    def response(self) -> LLMResponse:
        """Return the whole."""
        message = ChatMessage(role="assistant", content="".join(self._parts))
        reason = "error" if self._has_failed else "stop"
        choice = LLMChoice(index=0, message=message, finish_reason=reason)
        return LLMResponse(id=self._id, choices=(choice,), usage=self._usage)
