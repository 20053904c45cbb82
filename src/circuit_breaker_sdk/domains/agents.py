# Written by scripts/generate_sdk.py from the server's schema: change that, then `make generate`.
"""The domain of agents and their runs: ``client.agents``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

from msgspec import UNSET, UnsetType

from circuit_breaker_sdk.domains import agents_streams
from circuit_breaker_sdk.domains.agents_streams import AgentExecutionSubscriptionBuilder
from circuit_breaker_sdk.domains.execution import Executor
from circuit_breaker_sdk.events.agents import (
    Agent,
    AgentExecution,
    AgentLLMProviderInput,
    AgentPromptsInput,
    AgentRetryConfigInput,
    LLMConfigInput,
    StateAgentConfig,
    StateAgentScheduleInput,
)
from circuit_breaker_sdk.events.base import JSONInput
from circuit_breaker_sdk.subscriptions import SubscriptionManager

__all__ = ["AgentsClient"]

_AGENT = """
query Agent($id: String!) { agent(id: $id) { id name description llmProvider { providerType model
baseUrl } llmConfig { temperature maxTokens topP frequencyPenalty presencePenalty stopSequences }
prompts { system userTemplate contextInstructions } capabilities tools createdAt updatedAt } }
"""

_AGENTS = """
query Agents($first: Int, $after: String) { agents(first: $first, after: $after) { id name description
llmProvider { providerType model baseUrl } llmConfig { temperature maxTokens topP frequencyPenalty
presencePenalty stopSequences } prompts { system userTemplate contextInstructions } capabilities tools
createdAt updatedAt } }
"""

_STATE_AGENT_CONFIGS = """
query StateAgentConfigs($stateId: String!, $first: Int, $after: String) { stateAgentConfigs(stateId:
$stateId, first: $first, after: $after) { id stateId agentId llmConfig { temperature maxTokens topP
frequencyPenalty presencePenalty stopSequences } inputMapping outputMapping autoActivity schedule {
initialDelaySeconds intervalSeconds maxExecutions } retryConfig { maxAttempts backoffSeconds
retryOnErrors } enabled createdAt updatedAt } }
"""

_AGENT_EXECUTION = """
query AgentExecution($id: String!) { agentExecution(id: $id) { id agentId resourceId stateId status
inputData outputData errorMessage startedAt completedAt durationMs retryCount } }
"""

_RESOURCE_EXECUTIONS = """
query ResourceExecutions($resourceId: String!, $first: Int, $after: String) {
resourceExecutions(resourceId: $resourceId, first: $first, after: $after) { id agentId resourceId
stateId status inputData outputData errorMessage startedAt completedAt durationMs retryCount } }
"""

_CREATE_AGENT = """
mutation CreateAgent($input: AgentDefinitionInput!) { createAgent(input: $input) { id name description
llmProvider { providerType model baseUrl } llmConfig { temperature maxTokens topP frequencyPenalty
presencePenalty stopSequences } prompts { system userTemplate contextInstructions } capabilities tools
createdAt updatedAt } }
"""

_CREATE_STATE_AGENT_CONFIG = """
mutation CreateStateAgentConfig($input: StateAgentConfigInput!) { createStateAgentConfig(input: $input)
{ id stateId agentId llmConfig { temperature maxTokens topP frequencyPenalty presencePenalty
stopSequences } inputMapping outputMapping autoActivity schedule { initialDelaySeconds intervalSeconds
maxExecutions } retryConfig { maxAttempts backoffSeconds retryOnErrors } enabled createdAt updatedAt } }
"""

_TRIGGER_STATE_AGENTS = """
mutation TriggerStateAgents($input: TriggerStateAgentsInput!) { triggerStateAgents(input: $input) { id
agentId resourceId stateId status inputData outputData errorMessage startedAt completedAt durationMs
retryCount } }
"""

_CANCEL_AGENT_EXECUTION = """
mutation CancelAgentExecution($executionId: String!) { cancelAgentExecution(executionId: $executionId) {
id agentId resourceId stateId status inputData outputData errorMessage startedAt completedAt durationMs
retryCount } }
"""


@final
class AgentsClient:
    """Queries, mutations and streams of agents and their runs.

    What is left ``UNSET`` is not sent; ``None`` is null. Every query and mutation raises ``OperationError``
    where the server answers with errors (see its ``code``), and ``ConnectionFailed`` and its kin where no
    answer came: then a mutation was executed whole or not at all.
    """

    def __init__(self, executor: Executor, manager: SubscriptionManager) -> None:
        self._executor = executor
        self._manager = manager

    async def agent(self, *, id: str) -> Agent | None:
        """One agent, or null where the id names none."""
        variables: dict[str, object] = {"id": id}
        return await self._executor.optional(_AGENT, variables, type=Agent, operation_name="Agent")

    async def agents(
        self, *, first: int | UnsetType | None = UNSET, after: str | UnsetType | None = UNSET
    ) -> list[Agent]:
        """All agents, in the order of their creation.

        :param first: The number of items at most: 1 to 1,000, which is the default.
        :param after: The id of the item before them: the last one of the page before.
        """
        variables: dict[str, object] = {"first": first, "after": after}
        return await self._executor.field(_AGENTS, variables, type=list[Agent], operation_name="Agents")

    async def state_agent_configs(
        self, *, state_id: str, first: int | UnsetType | None = UNSET, after: str | UnsetType | None = UNSET
    ) -> list[StateAgentConfig]:
        """The configurations for a state, whatever the workflow, in the order of their creation.

        :param first: The number of items at most: 1 to 1,000, which is the default.
        :param after: The id of the item before them: the last one of the page before.
        """
        variables: dict[str, object] = {"stateId": state_id, "first": first, "after": after}
        return await self._executor.field(
            _STATE_AGENT_CONFIGS, variables, type=list[StateAgentConfig], operation_name="StateAgentConfigs"
        )

    async def agent_execution(self, *, id: str) -> AgentExecution | None:
        """One run, or null where the id names none."""
        variables: dict[str, object] = {"id": id}
        return await self._executor.optional(
            _AGENT_EXECUTION, variables, type=AgentExecution, operation_name="AgentExecution"
        )

    async def resource_executions(
        self,
        *,
        resource_id: str,
        first: int | UnsetType | None = UNSET,
        after: str | UnsetType | None = UNSET,
    ) -> list[AgentExecution]:
        """The runs of a resource, in the order of their start.

        An unknown resource is an error.

        :param first: The number of items at most: 1 to 1,000, which is the default.
        :param after: The id of the item before them: the last one of the page before.
        """
        variables: dict[str, object] = {"resourceId": resource_id, "first": first, "after": after}
        return await self._executor.field(
            _RESOURCE_EXECUTIONS, variables, type=list[AgentExecution], operation_name="ResourceExecutions"
        )

    async def create_agent(
        self,
        *,
        name: str,
        description: str,
        llm_provider: AgentLLMProviderInput,
        llm_config: LLMConfigInput,
        prompts: AgentPromptsInput,
        capabilities: Sequence[str],
        tools: Sequence[str],
    ) -> Agent:
        """Makes an agent.

        Its key is kept in the server's store of secrets and never shown again.

        :param tools: Must be empty.
        """
        variables: dict[str, object] = {
            "input": {
                "name": name,
                "description": description,
                "llmProvider": llm_provider,
                "llmConfig": llm_config,
                "prompts": prompts,
                "capabilities": capabilities,
                "tools": tools,
            }
        }
        return await self._executor.field(_CREATE_AGENT, variables, type=Agent, operation_name="CreateAgent")

    async def create_state_agent_config(
        self,
        *,
        state_id: str,
        agent_id: str,
        input_mapping: JSONInput,
        output_mapping: JSONInput,
        enabled: bool,
        llm_config: LLMConfigInput | UnsetType | None = UNSET,
        auto_activity: str | UnsetType | None = UNSET,
        schedule: StateAgentScheduleInput | UnsetType | None = UNSET,
        retry_config: AgentRetryConfigInput | UnsetType | None = UNSET,
    ) -> StateAgentConfig:
        """Has an agent run for resources in a state, when ``triggerStateAgents`` is called for one.

        :param schedule: Must be null.
        """
        variables: dict[str, object] = {
            "input": {
                "stateId": state_id,
                "agentId": agent_id,
                "llmConfig": llm_config,
                "inputMapping": input_mapping,
                "outputMapping": output_mapping,
                "autoActivity": auto_activity,
                "schedule": schedule,
                "retryConfig": retry_config,
                "enabled": enabled,
            }
        }
        return await self._executor.field(
            _CREATE_STATE_AGENT_CONFIG,
            variables,
            type=StateAgentConfig,
            operation_name="CreateStateAgentConfig",
        )

    async def trigger_state_agents(self, *, resource_id: str) -> list[AgentExecution]:
        """Starts a run for each enabled configuration of the state that the resource is in, and answers at
        once; the runs go on in the background: follow them with ``agentExecutionStream``.
        """
        variables: dict[str, object] = {"input": {"resourceId": resource_id}}
        return await self._executor.field(
            _TRIGGER_STATE_AGENTS, variables, type=list[AgentExecution], operation_name="TriggerStateAgents"
        )

    async def cancel_agent_execution(self, *, execution_id: str) -> AgentExecution:
        """Stops a run.

        Refused with CONFLICT if it is over.
        """
        variables: dict[str, object] = {"executionId": execution_id}
        return await self._executor.field(
            _CANCEL_AGENT_EXECUTION, variables, type=AgentExecution, operation_name="CancelAgentExecution"
        )

    def subscribe_execution_stream(
        self, *, execution_id: str | None = None, agent_id: str | None = None, resource_id: str | None = None
    ) -> AgentExecutionSubscriptionBuilder:
        """Runs of agents.

        With ``executionId`` one run, from its beginning, whenever this is subscribed: STARTED, then PROGRESS,
        LOG and RETRY as they come, then COMPLETED, FAILED or CANCELLED; then it completes. With ``agentId``
        or ``resourceId`` all their runs from now on, without end. Exactly one argument is to be given.
        """
        return agents_streams.agent_execution_stream(
            self._manager, execution_id=execution_id, agent_id=agent_id, resource_id=resource_id
        )
