"""The inputs of the commands on agents, as the schema's input types have them."""

from __future__ import annotations

from typing import final

import msgspec

__all__ = [
    "AgentInput",
    "AgentProviderInput",
    "LlmConfig",
    "Prompts",
    "RetryConfig",
    "StateAgentConfigInput",
    "TriggerInput",
]


@final
class AgentProviderInput(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """``AgentLLMProviderInput``."""

    provider_type: str
    model: str
    api_key: str
    base_url: str | None = None

    def __repr__(self) -> str:
        return f"AgentProviderInput(provider_type={self.provider_type!r}, model={self.model!r})"


@final
class LlmConfig(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """``LlmConfigInput``, and ``LlmConfigGQL``."""

    temperature: float
    max_tokens: int | None = None
    top_p: float | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    stop_sequences: tuple[str, ...]


@final
class Prompts(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """``AgentPromptsInput``, and ``AgentPromptsGQL``."""

    system: str
    user_template: str
    context_instructions: str | None = None


@final
class AgentInput(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """``AgentDefinitionInput``."""

    name: str
    description: str
    llm_provider: AgentProviderInput
    llm_config: LlmConfig
    prompts: Prompts
    capabilities: tuple[str, ...]
    tools: tuple[str, ...]


@final
class RetryConfig(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """``AgentRetryConfigInput``, and ``AgentRetryConfigGQL``."""

    max_attempts: int
    backoff_seconds: int
    retry_on_errors: tuple[str, ...]

    def covers(self, kind: str, message: str) -> bool:
        """Tell whether an attempt that failed so is to be made again."""
        wanted = self.retry_on_errors
        return not wanted or any(each == kind or each.lower() in message.lower() for each in wanted)


@final
class StateAgentConfigInput(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """``StateAgentConfigInput``."""

    state_id: str
    agent_id: str
    llm_config: LlmConfig | None = None
    input_mapping: object
    output_mapping: object
    auto_activity: str | None = None
    schedule: object = None
    retry_config: RetryConfig | None = None
    enabled: bool


@final
class TriggerInput(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """``TriggerStateAgentsInput``."""

    resource_id: str
