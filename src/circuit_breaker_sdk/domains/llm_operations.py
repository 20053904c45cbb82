# Written by scripts/generate_sdk.py from the server's schema: change that, then `make generate`.
"""The domain of language models: ``client.llm``."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import UNSET, UnsetType

from circuit_breaker_sdk.domains import llm_streams
from circuit_breaker_sdk.domains.execution import Executor
from circuit_breaker_sdk.domains.llm_streams import LLMStreamSubscriptionBuilder
from circuit_breaker_sdk.events.llm import ChatMessageInput, LLMModelInput, LLMProvider, LLMResponse
from circuit_breaker_sdk.subscriptions import SubscriptionManager

__all__ = ["LLMOperations"]

_LLM_PROVIDERS = """
query LlmProviders($first: Int, $after: String) { llmProviders(first: $first, after: $after) { id
providerType name baseUrl models { id name maxTokens contextWindow costPerInputToken costPerOutputToken
supportsStreaming supportsFunctionCalling capabilities } healthStatus { isHealthy lastCheck errorRate
averageLatencyMs consecutiveFailures lastError } createdAt updatedAt } }
"""

_LLM_PROVIDER = """
query LlmProvider($id: String!) { llmProvider(id: $id) { id providerType name baseUrl models { id name
maxTokens contextWindow costPerInputToken costPerOutputToken supportsStreaming supportsFunctionCalling
capabilities } healthStatus { isHealthy lastCheck errorRate averageLatencyMs consecutiveFailures
lastError } createdAt updatedAt } }
"""

_LLM_CHAT_COMPLETION = """
mutation LlmChatCompletion($input: LlmChatCompletionInput!) { llmChatCompletion(input: $input) { id
model choices { index message { role content name } finishReason } usage { promptTokens completionTokens
totalTokens estimatedCost } provider routingInfo { selectedProvider routingStrategy latencyMs retryCount
fallbackUsed } } }
"""

_CONFIGURE_LLM_PROVIDER = """
mutation ConfigureLlmProvider($input: LlmProviderConfigInput!) { configureLlmProvider(input: $input) {
id providerType name baseUrl models { id name maxTokens contextWindow costPerInputToken
costPerOutputToken supportsStreaming supportsFunctionCalling capabilities } healthStatus { isHealthy
lastCheck errorRate averageLatencyMs consecutiveFailures lastError } createdAt updatedAt } }
"""


class LLMOperations:
    """Queries, mutations and streams of language models.

    What is left ``UNSET`` is not sent; ``None`` is null. Every query and mutation raises ``OperationError``
    where the server answers with errors (see its ``code``), and ``ConnectionFailed`` and its kin where no
    answer came: then a mutation was executed whole or not at all.
    """

    def __init__(self, executor: Executor, manager: SubscriptionManager) -> None:
        self._executor = executor
        self._manager = manager

    async def providers(
        self, *, first: int | UnsetType | None = UNSET, after: str | UnsetType | None = UNSET
    ) -> list[LLMProvider]:
        """All providers: the built-in one, then those configured, in the order of their creation.

        :param first: The number of items at most: 1 to 1,000, which is the default.
        :param after: The id of the item before them: the last one of the page before.
        """
        variables: dict[str, object] = {"first": first, "after": after}
        return await self._executor.field(
            _LLM_PROVIDERS, variables, type=list[LLMProvider], operation_name="LlmProviders"
        )

    async def provider(self, *, id: str) -> LLMProvider | None:
        """One provider, or null where the id names none."""
        variables: dict[str, object] = {"id": id}
        return await self._executor.optional(
            _LLM_PROVIDER, variables, type=LLMProvider, operation_name="LlmProvider"
        )

    async def chat_completion(
        self,
        *,
        model: str,
        messages: Sequence[ChatMessageInput],
        temperature: float | UnsetType | None = UNSET,
        max_tokens: int | UnsetType | None = UNSET,
        top_p: float | UnsetType | None = UNSET,
        frequency_penalty: float | UnsetType | None = UNSET,
        presence_penalty: float | UnsetType | None = UNSET,
        stop: Sequence[str] | UnsetType | None = UNSET,
        stream: bool | UnsetType | None = UNSET,
        user: str | UnsetType | None = UNSET,
        project_id: str | UnsetType | None = UNSET,
        request_id: str | UnsetType | None = UNSET,
    ) -> LLMResponse:
        """Has a model complete a conversation.

        With ``stream``, its pieces come through ``llmStream`` under the input's ``requestId``; the answer
        comes when it is whole, either way. Refused with CONFLICT if the ``requestId`` was used before, with
        NOT_FOUND if no provider serves the model, with PROVIDER_FAILED or RATE_LIMITED if the provider fails.
        Prices come from the provider's list of models; usage is charged to the project, else to the user.

        :param model: gpt-… and o1, o3, … go to a provider of the type openai, claude-… to anthropic, gemini-…
            to google, echo… to echo; others to the first provider that lists the model.
        :param messages: At least one.
        :param temperature: 0 to 2.
        :param top_p: 0 to 1.
        :param frequency_penalty: -2 to 2.
        :param presence_penalty: -2 to 2.
        :param stop: At most 4.
        :param stream: Send the pieces through ``llmStream``.
        :param user: Whom the usage is charged to, unless ``projectId`` is given.
        :param project_id: The project that the usage is charged to.
        :param request_id: The caller's id for this request, never used before: subscribe to it first and miss
            nothing.
        """
        variables: dict[str, object] = {
            "input": {
                "model": model,
                "messages": messages,
                "temperature": temperature,
                "maxTokens": max_tokens,
                "topP": top_p,
                "frequencyPenalty": frequency_penalty,
                "presencePenalty": presence_penalty,
                "stop": stop,
                "stream": stream,
                "user": user,
                "projectId": project_id,
                "requestId": request_id,
            }
        }
        return await self._executor.field(
            _LLM_CHAT_COMPLETION, variables, type=LLMResponse, operation_name="LlmChatCompletion"
        )

    async def configure_provider(
        self,
        *,
        provider_type: str,
        name: str,
        base_url: str,
        api_key_id: str,
        models: Sequence[LLMModelInput],
    ) -> LLMProvider:
        """Adds an endpoint that speaks OpenAI's protocol, or changes the one of that name.

        ``apiKeyId`` names the key; the operator has put it into the server's environment.

        :param name: Unique; a known name changes that provider.
        :param base_url: Of an endpoint that speaks OpenAI's protocol, for example https://llm.example/v1.
        :param api_key_id: Names a key in the server's environment (CIRCUIT_BREAKER_API_KEY_<ID>); empty for
            an endpoint that needs none.
        """
        variables: dict[str, object] = {
            "input": {
                "providerType": provider_type,
                "name": name,
                "baseUrl": base_url,
                "apiKeyId": api_key_id,
                "models": models,
            }
        }
        return await self._executor.field(
            _CONFIGURE_LLM_PROVIDER, variables, type=LLMProvider, operation_name="ConfigureLlmProvider"
        )

    def subscribe_stream(self, request_id: str | None = None) -> LLMStreamSubscriptionBuilder:
        """The pieces of one streamed completion, from its beginning, whenever this is subscribed:
        STREAM_START, the deltas, then STREAM_END or STREAM_ERROR; then it completes.

        A request that does not come within a minute is an error. Streams can be read again for a day.
        """
        return llm_streams.llm_stream(self._manager, request_id=request_id)
