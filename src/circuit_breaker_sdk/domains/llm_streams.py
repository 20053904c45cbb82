# Written by scripts/generate_sdk.py from the server's schema: change that, then `make generate`.
"""The streams of language models: documents, typed subscriptions, builders."""

from __future__ import annotations

from collections.abc import Callable
from typing import Self, final

from circuit_breaker_sdk.domains.llm_assembly import AssemblingSubscription
from circuit_breaker_sdk.events.llm import LLMStreamChunk
from circuit_breaker_sdk.subscriptions import (
    Operation,
    SubscriptionBuilder,
    SubscriptionManager,
)

__all__ = [
    "LLMStreamSubscription",
    "LLMStreamSubscriptionBuilder",
    "llm_stream",
]

_LLM_STREAM = """
subscription LlmStream($requestId: String!) { llmStream(requestId: $requestId) { eventType requestId
delta token isComplete timestamp usage { promptTokens completionTokens totalTokens estimatedCost } error
} }
"""


@final
class LLMStreamSubscription(AssemblingSubscription):
    """The pieces of one streamed completion (``llmStream``).

    Example::

        stream = await client.subscriptions.llm_stream(request_id="…").subscribe()
        stream.on_chunk(print)
    """

    def on_chunk(self, handler: Callable[[LLMStreamChunk], object]) -> Self:
        """Call ``handler`` with each event: ``on_data`` under this stream's name."""
        return self.on_data(handler)


@final
class LLMStreamSubscriptionBuilder(SubscriptionBuilder[LLMStreamChunk, LLMStreamSubscription]):
    """Arguments of ``llmStream``; the server applies them all.

    Example::

        builder.request_id("…")
    """

    def request_id(self, request_id: str) -> Self:
        """Set ``requestId``."""
        return self._with("requestId", request_id)


def llm_stream(manager: SubscriptionManager, *, request_id: str | None) -> LLMStreamSubscriptionBuilder:
    """Make the builder of ``llmStream``; ``None`` arguments are not sent."""
    given = {"requestId": request_id}
    operation = Operation(
        document=_LLM_STREAM,
        type=LLMStreamChunk,
        variables={name: value for name, value in given.items() if value is not None},
        root_field="llmStream",
        label="llmStream",
    )
    return LLMStreamSubscriptionBuilder(manager, operation, LLMStreamSubscription)
