# Written by scripts/generate_sdk.py from the server's schema: change that, then `make generate`.
"""Types of agents and their runs: results, events and inputs."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import msgspec
from msgspec import UNSET, UnsetType

from circuit_breaker_sdk.events.base import JSON, Event, Input, OpenEnum

__all__ = [
    "Agent",
    "AgentExecution",
    "AgentExecutionEvent",
    "AgentExecutionEventType",
    "AgentExecutionStatus",
    "AgentLLMProvider",
    "AgentLLMProviderInput",
    "AgentPrompts",
    "AgentPromptsInput",
    "AgentRetryConfig",
    "AgentRetryConfigInput",
    "LLMConfig",
    "LLMConfigInput",
    "StateAgentConfig",
    "StateAgentSchedule",
    "StateAgentScheduleInput",
]

_NULL = msgspec.Raw(b"null")


class AgentLLMProvider(Event, frozen=True, kw_only=True):
    """The provider that an agent's prompts are sent to (``AgentLLMProviderGQL``).

    :ivar provider_type: echo is the built-in provider.
    :ivar base_url: Of an endpoint that speaks OpenAI's protocol; null where the configured provider of the
        model is asked.
    """

    provider_type: str
    model: str
    base_url: str | None = None


class LLMConfig(Event, frozen=True, kw_only=True):
    """Settings of the requests to a model (``LlmConfigGQL``)."""

    temperature: float
    max_tokens: int | None = None
    top_p: float | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    stop_sequences: tuple[str, ...] = ()


class AgentPrompts(Event, frozen=True, kw_only=True):
    """The prompts of an agent.

    ``{name}`` stands for a key of the run's input (``AgentPromptsGQL``).

    :ivar context_instructions: Added to the system prompt.
    """

    system: str
    user_template: str
    context_instructions: str | None = None


class Agent(Event, frozen=True, kw_only=True):
    """Something that answers prompts with a language model (``AgentDefinitionGQL``).

    :ivar tools: Always empty: this server gives agents no tools, and refuses the setting.
    """

    id: str
    name: str
    description: str
    llm_provider: AgentLLMProvider
    llm_config: LLMConfig
    prompts: AgentPrompts
    created_at: datetime
    updated_at: datetime
    capabilities: tuple[str, ...] = ()
    tools: tuple[str, ...] = ()


class AgentExecutionStatus(OpenEnum):
    """State of a run; the last four are ends (``AgentExecutionStatusGQL``)."""

    PENDING = "PENDING"
    RUNNING = "RUNNING"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    TIMEOUT = "TIMEOUT"
    """An attempt took longer than a minute, and no retry was left."""
    CANCELLED = "CANCELLED"


class AgentExecution(Event, frozen=True, kw_only=True):
    """One run of an agent for a resource (``AgentExecutionGQL``).

    :ivar output_data: {content, output}: the whole answer, and what it says where it is a JSON object; null
        while it runs.
    """

    id: str
    agent_id: str
    resource_id: str
    state_id: str
    status: AgentExecutionStatus
    started_at: datetime
    retry_count: int
    _input_data: msgspec.Raw = msgspec.field(name="inputData", default=_NULL)
    _output_data: msgspec.Raw = msgspec.field(name="outputData", default=_NULL)
    error_message: str | None = None
    completed_at: datetime | None = None
    duration_ms: int | None = None

    @property
    def input_data(self) -> JSON:
        """The ``inputData``, decoded on first access."""
        return self._json("_input_data")

    @property
    def output_data(self) -> JSON:
        """{content, output}: the whole answer, and what it says where it is a JSON object; null while it
        runs.
        """
        return self._json("_output_data")


class StateAgentSchedule(Event, frozen=True, kw_only=True):
    """Runs by time (``StateAgentScheduleGQL``)."""

    initial_delay_seconds: int | None = None
    interval_seconds: int | None = None
    max_executions: int | None = None


class AgentRetryConfig(Event, frozen=True, kw_only=True):
    """Retries of a failed attempt (``AgentRetryConfigGQL``).

    :ivar max_attempts: All attempts together, the first included.
    :ivar backoff_seconds: Before each further attempt.
    :ivar retry_on_errors: Kinds of failure, or parts of their texts; none means all.
    """

    max_attempts: int
    backoff_seconds: int
    retry_on_errors: tuple[str, ...] = ()


class StateAgentConfig(Event, frozen=True, kw_only=True):
    """Which agent runs for resources in a state, and what becomes of its answer (``StateAgentConfigGQL``).

    :ivar llm_config: Instead of the agent's own.
    :ivar input_mapping: By key of the run's input: data.KEY, metadata.KEY, id or state of the resource;
        anything else is null.
    :ivar output_mapping: By key of the resource's data: content, the whole answer, or output.KEY of an answer
        that is a JSON object.
    :ivar auto_activity: Executed on the resource with what the output mapping gives, after the answer.
    :ivar schedule: Always null: this server starts no runs by time, and refuses the setting.
    """

    id: str
    state_id: str
    agent_id: str
    enabled: bool
    created_at: datetime
    updated_at: datetime
    llm_config: LLMConfig | None = None
    _input_mapping: msgspec.Raw = msgspec.field(name="inputMapping", default=_NULL)
    _output_mapping: msgspec.Raw = msgspec.field(name="outputMapping", default=_NULL)
    auto_activity: str | None = None
    schedule: StateAgentSchedule | None = None
    retry_config: AgentRetryConfig | None = None

    @property
    def input_mapping(self) -> JSON:
        """By key of the run's input: data.KEY, metadata.KEY, id or state of the resource; anything else is
        null.
        """
        return self._json("_input_mapping")

    @property
    def output_mapping(self) -> JSON:
        """By key of the resource's data: content, the whole answer, or output.KEY of an answer that is a
        JSON object.
        """
        return self._json("_output_mapping")


class AgentExecutionEventType(OpenEnum):
    """Kind of an event of a run (``AgentExecutionEventType``)."""

    STARTED = "STARTED"
    PROGRESS = "PROGRESS"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"
    LOG = "LOG"
    RETRY = "RETRY"


class AgentExecutionEvent(Event, frozen=True, kw_only=True):
    """Something that happened in a run (``AgentExecutionEventGQL``).

    :ivar data: STARTED: {input}; PROGRESS: {delta}; LOG: {message}; RETRY: {attempt}; COMPLETED: {output}.
    :ivar error: Of RETRY and FAILED.

    Example::

        async for event in client.agents.subscribe_execution_stream(execution_id="…"):
            print(event.type, event.data)
    """

    event_type: AgentExecutionEventType
    execution_id: str
    agent_id: str
    resource_id: str
    status: AgentExecutionStatus
    timestamp: datetime
    _data: msgspec.Raw = msgspec.field(name="data", default=_NULL)
    error: str | None = None

    @property
    def data(self) -> JSON:
        """STARTED: {input}; PROGRESS: {delta}; LOG: {message}; RETRY: {attempt}; COMPLETED: {output}."""
        return self._json("_data")

    @property
    def type(self) -> AgentExecutionEventType:
        """The same as :attr:`event_type`."""
        return self.event_type

    @property
    def is_last(self) -> bool:
        """Whether the run is over with it."""
        return self.event_type in ("COMPLETED", "FAILED", "CANCELLED")


class AgentLLMProviderInput(Input, frozen=True, kw_only=True):
    """An input (``AgentLLMProviderInput``).

    :ivar api_key: Kept in the store of secrets; empty where none is needed.
    :ivar base_url: Null: the configured provider of the model is asked, with its own key; ``apiKey`` must
        then be empty.
    """

    provider_type: str
    model: str
    api_key: str
    base_url: str | UnsetType | None = UNSET


class LLMConfigInput(Input, frozen=True, kw_only=True):
    """The bounds are those of ``LlmChatCompletionInput`` (``LlmConfigInput``)."""

    temperature: float
    stop_sequences: Sequence[str]
    max_tokens: int | UnsetType | None = UNSET
    top_p: float | UnsetType | None = UNSET
    frequency_penalty: float | UnsetType | None = UNSET
    presence_penalty: float | UnsetType | None = UNSET


class AgentPromptsInput(Input, frozen=True, kw_only=True):
    """See ``AgentPromptsGQL`` (``AgentPromptsInput``)."""

    system: str
    user_template: str
    context_instructions: str | UnsetType | None = UNSET


class StateAgentScheduleInput(Input, frozen=True, kw_only=True):
    """Refused: this server starts no runs by time (``StateAgentScheduleInput``)."""

    initial_delay_seconds: int | UnsetType | None = UNSET
    interval_seconds: int | UnsetType | None = UNSET
    max_executions: int | UnsetType | None = UNSET


class AgentRetryConfigInput(Input, frozen=True, kw_only=True):
    """See ``AgentRetryConfigGQL`` (``AgentRetryConfigInput``).

    :ivar max_attempts: 1 to 10.
    :ivar backoff_seconds: 0 to 3600.
    """

    max_attempts: int
    backoff_seconds: int
    retry_on_errors: Sequence[str]
