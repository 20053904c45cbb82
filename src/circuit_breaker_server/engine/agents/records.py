"""The records of agents and their runs. No key is in them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import final

import msgspec

from circuit_breaker_server.engine.agents.inputs import LlmConfig, Prompts, RetryConfig
from circuit_breaker_server.engine.costs.records import Usage
from circuit_breaker_server.engine.record_bodies import VersionedBody, decode_as
from circuit_breaker_server.log.event_log import Record, subject

__all__ = [
    "Agent",
    "AgentCreated",
    "AgentsTriggered",
    "Body",
    "ConfigCreated",
    "ExecutionEnded",
    "ExecutionProgressed",
    "ExecutionStarted",
    "Note",
    "StateAgentConfig",
    "Triggered",
    "agent_subject",
    "config_subject",
    "decode_body",
    "execution_subject",
    "trigger_subject",
]


def agent_subject(agent_id: str) -> str:
    """Name the subject of an agent's own records."""
    return subject("agent", agent_id)


def config_subject(config_id: str) -> str:
    """Name the subject of a configuration's records."""
    return subject("agentconfig", config_id)


def trigger_subject(workflow_id: str, resource_id: str, trigger_id: str) -> str:
    """Name the subject of the starts of runs for a resource."""
    return subject("trigger", workflow_id, f"{resource_id}/{trigger_id}")


def execution_subject(agent_id: str, resource_id: str, execution_id: str) -> str:
    """Name the subject of a run's records."""
    return subject("execution", agent_id, resource_id, execution_id)


@final
class Agent(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """An agent; its key, if it has one, is the secret ``agent-<id>``.

    :ivar base_url: ``None`` where the configured provider of the model is asked.
    """

    id: str
    name: str
    description: str
    provider_type: str
    model: str
    base_url: str | None
    has_key: bool
    llm_config: LlmConfig
    prompts: Prompts
    capabilities: tuple[str, ...]
    created_at: str

    @property
    def secret_id(self) -> str:
        """Names its key in the store of secrets."""
        return f"agent-{self.id}"


@final
class StateAgentConfig(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Which agent runs for resources in a state."""

    id: str
    state_id: str
    agent_id: str
    llm_config: LlmConfig | None
    input_mapping: Mapping[str, str]
    output_mapping: Mapping[str, str]
    auto_activity: str | None
    retry_config: RetryConfig | None
    enabled: bool
    created_at: str


@final
class AgentCreated(VersionedBody, frozen=True, kw_only=True, tag="agent_created"):
    """By ``createAgent``."""

    agent: Agent


@final
class ConfigCreated(VersionedBody, frozen=True, kw_only=True, tag="agent_config_created"):
    """By ``createStateAgentConfig``."""

    config: StateAgentConfig


@final
class Triggered(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A run to be made.

    :ivar input: JSON.
    """

    id: str
    agent_id: str
    config_id: str
    input: Mapping[str, object]


@final
class AgentsTriggered(VersionedBody, frozen=True, kw_only=True, tag="agents_triggered"):
    """By ``triggerStateAgents``; the place after it is where each run's stream begins."""

    workflow_id: str
    resource_id: str
    state_id: str
    at: str
    runs: tuple[Triggered, ...]


class _OfExecution(VersionedBody, frozen=True, kw_only=True):
    execution_id: str
    agent_id: str
    resource_id: str
    at: str


@final
class ExecutionStarted(_OfExecution, frozen=True, kw_only=True, tag="execution_started"):
    """The run has begun."""

    input: Mapping[str, object]


@final
class Note(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """One event of a run: output, a line for its log, or a further attempt.

    :ivar kind: ``PROGRESS``, ``LOG`` or ``RETRY``.
    :ivar attempt: for ``RETRY``, the number of the attempt that follows.
    """

    kind: str
    text: str
    attempt: int | None = None


@final
class ExecutionProgressed(_OfExecution, frozen=True, kw_only=True, tag="execution_progressed"):
    """Notes of a run since its last record, in order."""

    notes: tuple[Note, ...]


@final
class ExecutionEnded(_OfExecution, frozen=True, kw_only=True, tag="execution_ended"):
    """The run is over.

    :ivar status: ``COMPLETED``, ``FAILED``, ``TIMEOUT`` or ``CANCELLED``.
    :ivar usage: to be charged; ``None`` where no model was asked or it did not answer.
    """

    status: str
    output: Mapping[str, object] | None = None
    error: str | None = None
    usage: Usage | None = None


Body = (
    AgentCreated | ConfigCreated | AgentsTriggered | ExecutionStarted | ExecutionProgressed | ExecutionEnded
)
_DECODER: msgspec.json.Decoder[Body] = msgspec.json.Decoder(Body)


def decode_body(record: Record) -> Body:
    """Read a record of agents.

    :raises LogCorruptError: it is of a newer version, of an unknown type, or no body at all.
    """
    return decode_as(_DECODER, record)
