"""Root fields of language models."""

from __future__ import annotations

from collections.abc import Mapping

from circuit_breaker_server.engine.llm.inputs import ChatCompletion, ProviderConfig
from circuit_breaker_server.graphql.roots.arguments import List, Mutation, Query, input_of, text

__all__ = ["LISTS", "MUTATIONS", "QUERIES"]

LISTS: Mapping[str, List] = {"llmProviders": lambda engine, _given, _may_see: iter(engine.llm.providers())}

QUERIES: Mapping[str, Query] = {
    "llmProvider": lambda engine, given: engine.llm.provider(text(given, "id")),
}

MUTATIONS: Mapping[str, Mutation] = {
    "llmChatCompletion": lambda engine, given: engine.llm.complete(input_of(given, ChatCompletion)),
    "configureLlmProvider": lambda engine, given: engine.llm.configure_provider(
        input_of(given, ProviderConfig)
    ),
}
