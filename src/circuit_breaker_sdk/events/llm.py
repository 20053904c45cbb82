# Written by scripts/generate_sdk.py from the server's schema: change that, then `make generate`.
"""Types of language models: results, events and inputs."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from msgspec import UNSET, UnsetType

from circuit_breaker_sdk.events.base import Event, Input, OpenEnum

__all__ = [
    "ChatMessage",
    "ChatMessageInput",
    "LLMChoice",
    "LLMModel",
    "LLMModelInput",
    "LLMProvider",
    "LLMProviderHealth",
    "LLMResponse",
    "LLMStreamChunk",
    "LLMStreamChunkType",
    "RoutingInfo",
    "TokenUsage",
]


class LLMModel(Event, frozen=True, kw_only=True):
    """A model of a provider, with its prices (``LlmModelGQL``).

    :ivar cost_per_input_token: USD per token of the prompt.
    :ivar cost_per_output_token: USD per token of the completion.
    """

    id: str
    name: str
    max_tokens: int
    context_window: int
    cost_per_input_token: float
    cost_per_output_token: float
    supports_streaming: bool
    supports_function_calling: bool
    capabilities: tuple[str, ...] = ()


class LLMProviderHealth(Event, frozen=True, kw_only=True):
    """Health of a provider, from its real calls since it was last configured (``LlmProviderHealthGQL``).

    :ivar is_healthy: Fewer than three failures in a row.
    :ivar last_check: When it was last called; when it was configured, if never.
    :ivar error_rate: Failed calls by all calls, 0 to 1.
    :ivar last_error: The kind of the last failure, without the provider's own text, which may quote a prompt.
    """

    is_healthy: bool
    last_check: datetime
    error_rate: float
    average_latency_ms: int
    consecutive_failures: int
    last_error: str | None = None


class LLMProvider(Event, frozen=True, kw_only=True):
    """An endpoint that completes conversations (``LlmProviderGQL``).

    :ivar provider_type: openai, anthropic, google, echo, or a name of your own; models are routed by their
        prefix to the first four.
    """

    id: str
    provider_type: str
    name: str
    base_url: str
    health_status: LLMProviderHealth
    created_at: datetime
    updated_at: datetime
    models: tuple[LLMModel, ...] = ()


class ChatMessage(Event, frozen=True, kw_only=True):
    """A message of a conversation (``ChatMessageGQL``)."""

    role: str
    content: str
    name: str | None = None


class LLMChoice(Event, frozen=True, kw_only=True):
    """One of the answers of a completion (``LlmChoiceGQL``).

    :ivar finish_reason: As the provider gives it: stop, length, …
    """

    index: int
    message: ChatMessage
    finish_reason: str | None = None


class TokenUsage(Event, frozen=True, kw_only=True):
    """Tokens that a completion used (``TokenUsageGQL``).

    :ivar estimated_cost: USD, from the prices of the provider's list of models; 0 where the model is not in
        it.
    """

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    estimated_cost: float


class RoutingInfo(Event, frozen=True, kw_only=True):
    """Why this provider, and how it went (``RoutingInfoGQL``).

    :ivar selected_provider: The name of the provider.
    :ivar routing_strategy: model-prefix or model-list.
    :ivar latency_ms: From the request to the last piece.
    :ivar retry_count: The number of retries at the provider.
    :ivar fallback_used: Always false: a request is not sent to a second provider.
    """

    selected_provider: str
    routing_strategy: str
    latency_ms: int
    retry_count: int
    fallback_used: bool


class LLMResponse(Event, frozen=True, kw_only=True):
    """A whole completion (``LlmResponseGQL``).

    :ivar id: The request's id: the caller's, or one made by the server.
    :ivar provider: The name of the provider.

    Example::

        answer = await client.llm.chat_completion(model="echo", messages=[...])
        print(answer.content)
    """

    id: str
    model: str | None = None
    choices: tuple[LLMChoice, ...] = ()
    usage: TokenUsage | None = None
    provider: str | None = None
    routing_info: RoutingInfo | None = None

    @property
    def content(self) -> str:
        """The text of the first choice."""
        return self.choices[0].message.content if self.choices else ""


class LLMStreamChunkType(OpenEnum):
    """Kind of a piece of a stream (``LlmStreamEventType``)."""

    STREAM_START = "STREAM_START"
    CONTENT_DELTA = "CONTENT_DELTA"
    STREAM_END = "STREAM_END"
    STREAM_ERROR = "STREAM_ERROR"
    TOKEN = "TOKEN"
    """Not sent by this server."""
    FUNCTION_CALL = "FUNCTION_CALL"


class LLMStreamChunk(Event, frozen=True, kw_only=True):
    """One piece of a streamed completion (``LlmStreamEventGQL``).

    :ivar delta: The text that this piece adds; of a FUNCTION_CALL its JSON.
    :ivar token: Always null: providers send deltas.
    :ivar is_complete: True of the last event of a stream, and of no other.
    :ivar usage: Of STREAM_END.
    :ivar error: Of STREAM_ERROR.

    Example::

        async for chunk in client.llm.subscribe_stream(request_id="…"):
            print(chunk.content, end="")
    """

    event_type: LLMStreamChunkType
    request_id: str
    is_complete: bool
    timestamp: datetime
    delta: str | None = None
    token: str | None = None
    usage: TokenUsage | None = None
    error: str | None = None

    @property
    def content(self) -> str:
        """The text that it adds; empty where it adds none."""
        return self.delta or "" if self.event_type == LLMStreamChunkType.CONTENT_DELTA else self.token or ""

    @property
    def type(self) -> LLMStreamChunkType:
        """The same as :attr:`event_type`."""
        return self.event_type


class ChatMessageInput(Input, frozen=True, kw_only=True):
    """An input (``ChatMessageInput``).

    :ivar role: system, user, assistant, tool, …
    """

    role: str
    content: str
    name: str | UnsetType | None = UNSET


class LLMModelInput(Input, frozen=True, kw_only=True):
    """See ``LlmModelGQL`` (``LlmModelInput``)."""

    id: str
    name: str
    max_tokens: int
    context_window: int
    cost_per_input_token: float
    cost_per_output_token: float
    supports_streaming: bool
    supports_function_calling: bool
    capabilities: Sequence[str]
