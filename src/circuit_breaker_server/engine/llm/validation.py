"""Check the inputs of the commands on language models."""

from __future__ import annotations

from circuit_breaker_server.engine.llm.inputs import ChatCompletion, ProviderConfig
from circuit_breaker_server.engine.llm.routing import ECHO
from circuit_breaker_server.engine.validation import (
    check_count,
    check_name,
    check_peer,
    check_range,
    check_unique,
    refuse,
)
from circuit_breaker_server.outbound import AddressRules

__all__ = ["check_completion", "check_provider"]

MAX_MESSAGES = 1_000
MAX_PROMPT_CHARACTERS = 512 * 1024
MAX_MODELS = 500


def check_provider(given: ProviderConfig, rules: AddressRules) -> None:
    """Refuse a provider that cannot be configured."""
    check_name(given.provider_type, "providerType")
    check_name(given.name, "name")
    if given.provider_type == ECHO.provider_type or given.name == ECHO.name:
        refuse("the provider echo is built in; give this one another name and type")
    check_peer(given.base_url, rules, "baseUrl")
    check_count(given.models, MAX_MODELS, "models")
    check_unique((model.id for model in given.models), "models")
    for i, model in enumerate(given.models):
        where = f"models[{i}]"
        check_name(model.id, f"{where}.id")
        check_name(model.name, f"{where}.name")
        for name, number in (("maxTokens", model.max_tokens), ("contextWindow", model.context_window)):
            if number < 1:
                refuse(f"{where}.{name}: {number} is less than 1")
        for name, price in (
            ("costPerInputToken", model.cost_per_input_token),
            ("costPerOutputToken", model.cost_per_output_token),
        ):
            if not 0 <= price <= 1:
                refuse(f"{where}.{name}: {price:g} is not between 0 and 1 USD per token")


def check_completion(given: ChatCompletion) -> None:
    """Refuse the invalid input of a completion."""
    check_name(given.model, "model")
    if not given.messages:
        refuse("messages: a completion needs at least one message")
    check_count(given.messages, MAX_MESSAGES, "messages")
    characters = sum(len(message.content) for message in given.messages)
    if characters > MAX_PROMPT_CHARACTERS:
        refuse(f"messages: {characters} characters; at most {MAX_PROMPT_CHARACTERS} are allowed")
    for i, message in enumerate(given.messages):
        check_name(message.role, f"messages[{i}].role")
    for where, text in (
        ("requestId", given.request_id),
        ("user", given.user),
        ("projectId", given.project_id),
    ):
        if text is not None:
            check_name(text, where)
    if given.max_tokens is not None and given.max_tokens < 1:
        refuse(f"maxTokens: {given.max_tokens} is less than 1")
    if given.stop is not None:
        check_count(given.stop, 4, "stop")
        if not all(given.stop):
            refuse("stop: must not be empty")
    check_range(given.temperature, 0, 2, "temperature")
    check_range(given.top_p, 0, 1, "topP")
    check_range(given.frequency_penalty, -2, 2, "frequencyPenalty")
    check_range(given.presence_penalty, -2, 2, "presencePenalty")
