"""Check the inputs of the commands on agents."""

from __future__ import annotations

from collections.abc import Mapping

from circuit_breaker_server.engine.agents.inputs import AgentInput, LlmConfig, StateAgentConfigInput
from circuit_breaker_server.engine.errors import shown
from circuit_breaker_server.engine.llm.routing import ECHO
from circuit_breaker_server.engine.validation import (
    check_count,
    check_description,
    check_name,
    check_range,
    check_url,
    json_kind,
    json_object,
    refuse,
)

__all__ = ["check_agent", "check_config"]

MAX_PROMPT = 64 * 1024
MAX_MAPPING_BYTES = 16 * 1024
MAX_CAPABILITIES = 100
MAX_KEY = 4_096


def check_agent(given: AgentInput) -> None:
    """Refuse an agent that cannot be made."""
    check_name(given.name, "name")
    check_description(given.description, "description")
    provider = given.llm_provider
    check_name(provider.provider_type, "llmProvider.providerType")
    check_name(provider.model, "llmProvider.model")
    if provider.base_url is not None:
        check_url(provider.base_url, "llmProvider.baseUrl")
    if provider.provider_type == ECHO.provider_type and (provider.base_url or provider.api_key):
        refuse("llmProvider: the provider echo is built in and has neither baseUrl nor apiKey")
    if len(provider.api_key) > MAX_KEY or not provider.api_key.isprintable():
        refuse(f"llmProvider.apiKey: at most {MAX_KEY} characters, all of them printable")
    _check_llm_config(given.llm_config, "llmConfig")
    prompts = given.prompts
    for where, text in (
        ("system", prompts.system),
        ("userTemplate", prompts.user_template),
        ("contextInstructions", prompts.context_instructions or ""),
    ):
        if len(text) > MAX_PROMPT:
            refuse(f"prompts.{where}: {len(text)} characters; at most {MAX_PROMPT} are allowed")
    if not prompts.user_template.strip():
        refuse("prompts.userTemplate: must not be empty")
    check_count(given.capabilities, MAX_CAPABILITIES, "capabilities")
    for i, capability in enumerate(given.capabilities):
        check_name(capability, f"capabilities[{i}]")
    if given.tools:
        refuse("tools: this server gives agents no tools; leave the list empty")


def check_config(
    given: StateAgentConfigInput, *, max_seconds: float
) -> tuple[Mapping[str, str], Mapping[str, str]]:
    """Refuse a configuration that cannot be made; return its two mappings.

    :param max_seconds: how long a run may take: the delays between its attempts have to fit.
    """
    check_name(given.state_id, "stateId")
    check_name(given.agent_id, "agentId")
    if given.llm_config is not None:
        _check_llm_config(given.llm_config, "llmConfig")
    if given.auto_activity is not None:
        check_name(given.auto_activity, "autoActivity")
    if given.schedule is not None:
        refuse("schedule: this server starts no runs by time; leave it out, and call triggerStateAgents")
    retry = given.retry_config
    if retry is not None:
        if not 1 <= retry.max_attempts <= 10:
            refuse(f"retryConfig.maxAttempts: {retry.max_attempts} is not between 1 and 10")
        if not 0 <= retry.backoff_seconds <= 3600:
            refuse(f"retryConfig.backoffSeconds: {retry.backoff_seconds} is not between 0 and 3600")
        delays = (retry.max_attempts - 1) * retry.backoff_seconds
        if delays > max_seconds:
            refuse(
                f"retryConfig: {retry.max_attempts} attempts with {retry.backoff_seconds} s between them "
                f"take {delays} s; a run may take {max_seconds:g} s"
            )
        check_count(retry.retry_on_errors, 50, "retryConfig.retryOnErrors")
        if not all(retry.retry_on_errors):
            refuse("retryConfig.retryOnErrors: must not be empty texts")
    input_mapping = _mapping(given.input_mapping, "inputMapping")
    output_mapping = _mapping(given.output_mapping, "outputMapping")
    for key, path in output_mapping.items():
        if path != "content" and not path.startswith("output."):
            refuse(f"outputMapping.{key}: {shown(path)} is neither content nor output.KEY")
    return input_mapping, output_mapping


def _mapping(value: object, where: str) -> dict[str, str]:
    found = json_object(value, where, max_bytes=MAX_MAPPING_BYTES)
    mapping: dict[str, str] = {}
    for key, path in found.items():
        if not isinstance(path, str):
            refuse(f"{where}.{key}: must be a text, not {json_kind(path)}")
        mapping[key] = path
    return mapping


def _check_llm_config(config: LlmConfig, where: str) -> None:
    check_range(config.temperature, 0, 2, f"{where}.temperature")
    check_range(config.top_p, 0, 1, f"{where}.topP")
    check_range(config.frequency_penalty, -2, 2, f"{where}.frequencyPenalty")
    check_range(config.presence_penalty, -2, 2, f"{where}.presencePenalty")
    if config.max_tokens is not None and config.max_tokens < 1:
        refuse(f"{where}.maxTokens: {config.max_tokens} is less than 1")
    check_count(config.stop_sequences, 4, f"{where}.stopSequences")
    if not all(config.stop_sequences):
        refuse(f"{where}.stopSequences: must not be empty texts")
