"""The inputs of the commands on language models, as the schema's input types have them."""

from __future__ import annotations

from typing import final

import msgspec

from circuit_breaker_server.engine.costs.records import usd

__all__ = ["ChatCompletion", "ChatMessage", "ModelInput", "ProviderConfig"]


@final
class ChatMessage(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """``ChatMessageInput``."""

    role: str
    content: str
    name: str | None = None


@final
class ChatCompletion(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """``LlmChatCompletionInput``."""

    model: str
    messages: tuple[ChatMessage, ...]
    temperature: float | None = None
    max_tokens: int | None = None
    top_p: float | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    stop: tuple[str, ...] | None = None
    stream: bool | None = None
    user: str | None = None
    project_id: str | None = None
    request_id: str | None = None


@final
class ModelInput(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """``LlmModelInput``, and ``LlmModelGQL``."""

    id: str
    name: str
    max_tokens: int
    context_window: int
    cost_per_input_token: float
    cost_per_output_token: float
    supports_streaming: bool
    supports_function_calling: bool
    capabilities: tuple[str, ...]

    def cost_of(self, prompt_tokens: int, completion_tokens: int) -> float:
        """Return what a completion costs, in USD."""
        return usd(prompt_tokens * self.cost_per_input_token + completion_tokens * self.cost_per_output_token)


@final
class ProviderConfig(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """``LlmProviderConfigInput``."""

    provider_type: str
    name: str
    base_url: str
    api_key_id: str
    models: tuple[ModelInput, ...]
