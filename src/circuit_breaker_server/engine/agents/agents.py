"""The commands on agents: made, configured, triggered, cancelled."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final, final

from circuit_breaker_server.caller_limits import CallerLimits
from circuit_breaker_server.engine.agents.inputs import AgentInput, StateAgentConfigInput, TriggerInput
from circuit_breaker_server.engine.agents.lookups import find_agent, find_execution
from circuit_breaker_server.engine.agents.mapping import map_input
from circuit_breaker_server.engine.agents.records import (
    Agent,
    AgentCreated,
    AgentsTriggered,
    ConfigCreated,
    StateAgentConfig,
    Triggered,
    agent_subject,
    config_subject,
    trigger_subject,
)
from circuit_breaker_server.engine.agents.run_supervisor import RunSupervisor, end_of_run
from circuit_breaker_server.engine.agents.serializers import agent_value, config_value
from circuit_breaker_server.engine.agents.state import AgentState, triggered
from circuit_breaker_server.engine.agents.streams import ends
from circuit_breaker_server.engine.agents.validation import check_agent, check_config
from circuit_breaker_server.engine.command import ATTEMPTS, Appender, Committed, Value
from circuit_breaker_server.engine.command_origin import ORIGIN
from circuit_breaker_server.engine.costs.costs import Costs
from circuit_breaker_server.engine.cursor import Cursor
from circuit_breaker_server.engine.errors import EngineError, ErrorCode, shown
from circuit_breaker_server.engine.events import Finite, Selection
from circuit_breaker_server.engine.idempotency import Effect
from circuit_breaker_server.engine.llm.llm import Llm
from circuit_breaker_server.engine.log_guards import RUN, ended
from circuit_breaker_server.engine.nodes.ownership import Ownership
from circuit_breaker_server.engine.secrets import Secrets
from circuit_breaker_server.engine.validation import check_name, refuse
from circuit_breaker_server.engine.workflows.workflows import Workflows
from circuit_breaker_server.log.event_log import ExpectationFailed, Record, subject

__all__ = ["Agents"]

DEFAULT_URLS: Final[Mapping[str, str]] = {
    "openai": "https://api.openai.com/v1",
    "anthropic": "https://api.anthropic.com/v1",
    "google": "https://generativelanguage.googleapis.com/v1beta/openai",
}
"""By provider type, the base URL for an agent that has a key of its own and no URL."""


@final
class Agents:
    """Agents, and the runs that callers ask for.

    :param attempt_seconds: how long one attempt of a run may take.
    :param limits: the shares of tenants and principals.
    :param ownership: which runs are this node's.

    Example::

        done = await engine.agents.trigger(TriggerInput(resource_id="…"))
    """

    def __init__(
        self,
        state: AgentState,
        appender: Appender,
        *,
        workflows: Workflows,
        llm: Llm,
        costs: Costs,
        secrets: Secrets,
        attempt_seconds: float,
        limits: CallerLimits,
        ownership: Ownership,
    ) -> None:
        self._state = state
        self._appender = appender
        self._workflows = workflows
        self._secrets = secrets
        self._run_seconds = limits.run_seconds
        self._runs = RunSupervisor(
            state,
            appender,
            workflows=workflows,
            llm=llm,
            costs=costs,
            secrets=secrets,
            attempt_seconds=attempt_seconds,
            limits=limits,
            ownership=ownership,
        )
        self.take_over = self._runs.take_over
        """Ends the runs that have lost their node, and belong to this one now."""
        self.let_go = self._runs.let_go
        """Stops all runs, and records nothing."""

    async def start(self) -> None:
        """End the runs that were going on when the server stopped."""
        await self._runs.start()

    async def aclose(self) -> None:
        """Stop the runs, and start none. Idempotent."""
        await self._runs.aclose()

    def follow(self, record: Record) -> None:
        """Start the runs that a record triggers."""
        self._runs.follow(record)

    def secret_ids(self) -> set[str]:
        """Return the ids of the secrets that agents need."""
        agents = (entry.agent for entry in self._state.agents.values())
        return {agent.secret_id for agent in agents if agent.has_key}

    # --- queries ---

    def agent(self, agent_id: str) -> Value | None:
        """Return an agent as ``AgentDefinitionGQL``, ``None`` if there is none."""
        entry = self._state.agents.get(agent_id)
        return None if entry is None else agent_value(entry.agent)

    def agents(self) -> Iterator[Value]:
        """Yield all agents as ``AgentDefinitionGQL``, in the order of their creation."""
        return (agent_value(entry.agent) for entry in self._state.agents.values())

    def count_configs(self) -> int:
        """Tell how many configurations there are, whatever the state."""
        return len(self._state.configs)

    def count_executions(self) -> int:
        """Tell how many runs there are, whatever the resource."""
        return len(self._state.executions)

    def ids(self) -> list[str]:
        """Return the ids of all agents, in the order of their creation."""
        return list(self._state.agents)

    def state_configs(self, state_id: str) -> Iterator[Value | None]:
        """Yield a state's configurations as ``StateAgentConfigGQL``, in order; ``None`` for others."""
        configs = (entry.config for entry in self._state.configs.values())
        return (config_value(config) if config.state_id == state_id else None for config in configs)

    def execution(self, execution_id: str) -> Value | None:
        """Return a run as ``AgentExecutionGQL``, ``None`` if there is none."""
        entry = self._state.executions.get(execution_id)
        return None if entry is None else entry.value()

    def resource_executions(self, resource_id: str) -> Iterator[Value | None]:
        """Yield a resource's runs as ``AgentExecutionGQL``, in the order of their start; ``None`` for others.

        :raises EngineError: ``NOT_FOUND``, at once.
        """
        self._workflows.workflow_of(resource_id)
        entries = self._state.executions.values()
        return (entry.value() if entry.resource_id == resource_id else None for entry in entries)

    def agent_of(self, execution_id: str) -> str | None:
        """Return the id of a run's agent, ``None`` if there is no such run."""
        entry = self._state.executions.get(execution_id)
        return None if entry is None else entry.agent_id

    def select_executions(self, arguments: Mapping[str, object]) -> Selection:
        """Tell what ``agentExecutionStream`` reads.

        :raises EngineError: ``INVALID_INPUT``, ``NOT_FOUND``.
        """
        names = ("executionId", "agentId", "resourceId")
        given = {name: str(arguments[name]) for name in names if arguments.get(name) is not None}
        if len(given) != 1:
            refuse("give exactly one of executionId, agentId and resourceId")
        ((name, id_),) = given.items()
        check_name(id_, name)
        match name:
            case "executionId":
                return self._select_one(id_)
            case "agentId":
                find_agent(self._state, id_)
                return Selection((f"{subject('execution', id_)}.*.*",))
            case _:
                self._workflows.workflow_of(id_)
                return Selection((f"execution.*.{subject(id_)}.*",))

    def _select_one(self, execution_id: str) -> Selection:
        def start() -> Cursor | None:
            entry = self._state.executions.get(execution_id)
            if entry is None:
                return None
            return Cursor(self._appender.epoch, entry.created, entry.events - 1, entry.check)

        def is_over() -> bool:
            entry = self._state.executions.get(execution_id)
            return entry is not None and entry.completed_at is not None

        missing = f"no run with the id {shown(execution_id)} was started in time"
        return Selection(
            (f"execution.*.*.{subject(execution_id)}",), finite=Finite(start, is_over, ends, missing)
        )

    # --- commands ---

    async def create_agent(self, given: AgentInput) -> Committed[Value]:
        """Make an agent; answers ``AgentDefinitionGQL``.

        :raises EngineError: ``INVALID_INPUT``, ``RATE_LIMITED``, ``UNAVAILABLE``.
        """
        self._appender.count_creation()
        check_agent(given)
        provider = given.llm_provider
        base_url = provider.base_url
        if provider.api_key and base_url is None:
            base_url = DEFAULT_URLS.get(provider.provider_type)
            if base_url is None:
                refuse("llmProvider.baseUrl: must say where the key is to be used")
        agent = Agent(
            id=self._appender.new_id(),
            name=given.name,
            description=given.description,
            provider_type=provider.provider_type,
            model=provider.model,
            base_url=base_url,
            has_key=bool(provider.api_key),
            llm_config=given.llm_config,
            prompts=given.prompts,
            capabilities=given.capabilities,
            created_at=self._appender.at(),
        )
        if agent.has_key:
            # First the secret: an agent without its key would be worse than a key without its agent.
            await self._secrets.put(agent.secret_id, provider.api_key)
        value = agent_value(agent)
        record = await self._appender.append(
            agent_subject(agent.id), AgentCreated(agent=agent), expected=0, effect=Effect.of(value)
        )
        return self._appender.committed(value, record)

    async def create_state_config(self, given: StateAgentConfigInput) -> Committed[Value]:
        """Have an agent run for resources in a state; answers ``StateAgentConfigGQL``.

        :raises EngineError: ``INVALID_INPUT``, ``NOT_FOUND``, ``RATE_LIMITED``, ``UNAVAILABLE``.
        """
        input_mapping, output_mapping = check_config(given, max_seconds=self._run_seconds)
        find_agent(self._state, given.agent_id)
        self._appender.count_creation()
        config = StateAgentConfig(
            id=self._appender.new_id(),
            state_id=given.state_id,
            agent_id=given.agent_id,
            llm_config=given.llm_config,
            input_mapping=input_mapping,
            output_mapping=output_mapping,
            auto_activity=given.auto_activity,
            retry_config=given.retry_config,
            enabled=given.enabled,
            created_at=self._appender.at(),
        )
        body = ConfigCreated(config=config)
        value = config_value(config)
        record = await self._appender.append(
            config_subject(config.id), body, expected=0, effect=Effect.of(value)
        )
        return self._appender.committed(value, record)

    async def trigger(self, given: TriggerInput) -> Committed[list[Value]]:
        """Start the runs that a resource's state asks for; answers ``[AgentExecutionGQL]``, at once.

        The effect is the record of the trigger: sent again under its key, no run is started twice, and the
        answer is that of then, whatever has become of the runs.

        :raises EngineError: ``NOT_FOUND``, ``RATE_LIMITED``, ``UNAVAILABLE``.
        """
        resource = self._workflows.view(given.resource_id)
        self._runs.require_room(ORIGIN.get().principal)
        configs = [
            entry.config
            for entry in self._state.configs.values()
            if entry.config.enabled and entry.config.state_id == resource.state
        ]
        runs = tuple(
            Triggered(
                id=self._appender.new_id(),
                agent_id=config.agent_id,
                config_id=config.id,
                input=map_input(
                    config.input_mapping,
                    id=given.resource_id,
                    state=resource.state,
                    data=resource.data,
                    metadata=resource.metadata,
                ),
            )
            for config in configs
        )
        body = AgentsTriggered(
            workflow_id=resource.workflow_id,
            resource_id=given.resource_id,
            state_id=resource.state,
            at=self._appender.at(),
            runs=runs,
        )
        subject_ = trigger_subject(resource.workflow_id, given.resource_id, self._appender.new_id())
        effect = Effect(lambda _: [entry.value() for entry in triggered(body, created=0, check="")])
        record = await self._appender.append(subject_, body, expected=0, effect=effect)
        entries = triggered(body, created=record.offset, check=record.check)
        return self._appender.committed([entry.value() for entry in entries], record)

    async def cancel(self, execution_id: str) -> Committed[Value]:
        """Stop a run; answers ``AgentExecutionGQL``.

        :raises EngineError: ``NOT_FOUND``, ``CONFLICT``: it is over; ``UNAVAILABLE``.
        """
        find_execution(self._state, execution_id)
        await self._runs.stop(execution_id)
        for _ in range(ATTEMPTS):
            entry = find_execution(self._state, execution_id)
            if entry.completed_at is not None:
                raise EngineError(
                    ErrorCode.CONFLICT, f"run {shown(execution_id)} is over", status=entry.status
                )
            body = end_of_run(entry, at=self._appender.at(), status="CANCELLED")
            try:
                record = await self._appender.append(
                    entry.subject,
                    body,
                    expected=entry.last,
                    effect=Effect.of(entry.ended(body).value()),
                    guards=ended(RUN, entry.id, decided_at=self._appender.decided_at()),
                )
            except ExpectationFailed:
                continue  # what the run was appending when it was stopped has come first
            return self._appender.committed(find_execution(self._state, execution_id).value(), record)
        raise EngineError(
            ErrorCode.CONFLICT, f"run {shown(execution_id)} is being changed by others; try again"
        )
