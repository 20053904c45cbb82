"""Inputs for completions and for providers of language models."""

from __future__ import annotations

from typing import Final

import msgspec

from circuit_breaker_server.engine.llm.inputs import ChatCompletion, ProviderConfig

__all__ = ["MODEL", "PLAIN", "ask", "provider"]

MODEL: Final = {
    "id": "gpt-good",
    "name": "Good",
    "maxTokens": 10,
    "contextWindow": 20,
    "costPerInputToken": 0.01,
    "costPerOutputToken": 0.1,
    "supportsStreaming": True,
    "supportsFunctionCalling": False,
    "capabilities": ["chat"],
}
PLAIN: Final = {"model": "echo", "messages": [{"role": "user", "content": "one two three"}]}


def ask(model: str = "echo", **more: object) -> ChatCompletion:
    """Return the input of a completion."""
    return msgspec.convert({**PLAIN, "model": model, **more}, ChatCompletion)


def provider(url: str, **more: object) -> ProviderConfig:
    """Return the input of a provider at a URL."""
    given = {
        "providerType": "openai",
        "name": "work",
        "baseUrl": url,
        "apiKeyId": "work",
        "models": [MODEL],
        **more,
    }
    return msgspec.convert(given, ProviderConfig)
