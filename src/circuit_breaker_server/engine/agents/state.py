"""The state of agents, their configurations and their runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import final

import msgspec

from circuit_breaker_server.engine.agents.records import (
    Agent,
    AgentCreated,
    AgentsTriggered,
    ConfigCreated,
    ExecutionEnded,
    ExecutionProgressed,
    ExecutionStarted,
    StateAgentConfig,
    decode_body,
    execution_subject,
)
from circuit_breaker_server.engine.command_origin import origin_of
from circuit_breaker_server.engine.costs.records import Usage
from circuit_breaker_server.engine.expiry_table import EndedKeys
from circuit_breaker_server.engine.state_tables import Entry, Table, TablePart
from circuit_breaker_server.engine.timestamps import parse_timestamp
from circuit_breaker_server.log.event_log import LogCorruptError, Record, Snapshot

__all__ = ["AgentState", "ExecutionEntry", "triggered"]


@final
class AgentEntry(Entry, frozen=True, kw_only=True):
    """An agent."""

    agent: Agent


@final
class ConfigEntry(Entry, frozen=True, kw_only=True):
    """A configuration."""

    config: StateAgentConfig


@final
class ExecutionEntry(Entry, frozen=True, kw_only=True, rename="camel"):
    """A run; ``created`` is the offset of the record that triggered it.

    :ivar check: of that record; ``events`` is how many events it has.
    :ivar last: the offset of the run's own last record so far; 0 before the first.
    :ivar node: the node that runs it, since it joined in this ``term``; before the start, the one asked.
    """

    check: str
    events: int
    last: int = 0
    id: str
    agent_id: str
    config_id: str
    workflow_id: str
    resource_id: str
    state_id: str
    status: str = "PENDING"
    input: Mapping[str, object]
    output: Mapping[str, object] | None = None
    error: str | None = None
    started_at: str
    completed_at: str | None = None
    retries: int = 0
    node: str = ""
    term: int = 0

    @property
    def subject(self) -> str:
        """The subject of its records."""
        return execution_subject(self.agent_id, self.resource_id, self.id)

    def ended(self, body: ExecutionEnded) -> ExecutionEntry:
        """Return it as its end leaves it."""
        return msgspec.structs.replace(
            self, status=body.status, output=body.output, error=body.error, completed_at=body.at
        )

    def value(self) -> dict[str, object]:
        """Return it in the shape of ``AgentExecutionGQL``."""
        duration = None
        if self.completed_at is not None:
            took = parse_timestamp(self.completed_at) - parse_timestamp(self.started_at)
            duration = min(round(took.total_seconds() * 1000), 2**31 - 1)
        return {
            "id": self.id,
            "agentId": self.agent_id,
            "resourceId": self.resource_id,
            "stateId": self.state_id,
            "status": self.status,
            "inputData": self.input,
            "outputData": self.output,
            "errorMessage": self.error,
            "startedAt": self.started_at,
            "completedAt": self.completed_at,
            "durationMs": duration,
            "retryCount": self.retries,
        }


def triggered(
    body: AgentsTriggered, *, created: int, check: str, node: str = "", term: int = 0
) -> list[ExecutionEntry]:
    """Return the runs that a trigger makes; the offset, the check and the node are of its record."""
    return [
        ExecutionEntry(
            created=created,
            check=check,
            events=len(body.runs),
            id=run.id,
            agent_id=run.agent_id,
            config_id=run.config_id,
            workflow_id=body.workflow_id,
            resource_id=body.resource_id,
            state_id=body.state_id,
            input=run.input,
            started_at=body.at,
            node=node,
            term=term,
        )
        for run in body.runs
    ]


@final
class AgentState(TablePart):
    """Agents, configurations, runs.

    :param owe: told of each usage that is to be charged.
    """

    tokens = frozenset({"agent", "agentconfig", "trigger", "execution"})

    def __init__(self, owe: Callable[[Usage | None, Record], None]) -> None:
        self.agents: Table[AgentEntry] = Table("agent", AgentEntry)
        self.configs: Table[ConfigEntry] = Table("agentconfig", ConfigEntry)
        self.executions: Table[ExecutionEntry] = Table("execution", ExecutionEntry)
        self._owe = owe
        self._ended = EndedKeys()
        super().__init__(self.agents, self.configs, self.executions)

    def restore(self, snapshot: Snapshot) -> None:
        """See :class:`Part`."""
        super().restore(snapshot)
        self._ended.restore((key, entry.completed_at) for key, entry in self.executions.items())

    def apply(self, record: Record) -> None:
        """Apply a record of agents."""
        body = decode_body(record)
        match body:
            case AgentCreated(agent=agent):
                self.agents.put(agent.id, AgentEntry(created=record.offset, agent=agent))
            case ConfigCreated(config=config):
                self.configs.put(config.id, ConfigEntry(created=record.offset, config=config))
            case AgentsTriggered():
                self._trigger(body, record)
            case ExecutionStarted():
                # Whoever starts it owns it: perhaps not the node that was asked for it.
                origin = origin_of(record)
                self._change(body.execution_id, record, status="RUNNING", node=origin.node, term=origin.term)
            case ExecutionProgressed(notes=notes):
                retries = sum(note.kind == "RETRY" for note in notes)
                old = self._known(body.execution_id, record)
                self._change(body.execution_id, record, retries=old.retries + retries)
            case ExecutionEnded():
                ended = self._known(body.execution_id, record).ended(body)
                self.executions.put(body.execution_id, msgspec.structs.replace(ended, last=record.offset))
                self._ended.put(body.execution_id, body.at)
                self._owe(body.usage, record)

    def _trigger(self, body: AgentsTriggered, record: Record) -> None:
        for old_id in self._ended.take_old(body.at):
            self.executions.remove(old_id)
        origin = origin_of(record)
        for entry in triggered(
            body, created=record.offset, check=record.check, node=origin.node, term=origin.term
        ):
            self.executions.put(entry.id, entry)

    def _known(self, execution_id: str, record: Record) -> ExecutionEntry:
        entry = self.executions.get(execution_id)
        if entry is None:
            raise LogCorruptError(f"record {record.offset} goes on with a run that no record triggered")
        return entry

    def _change(self, execution_id: str, record: Record, **changes: object) -> None:
        entry = self._known(execution_id, record)
        self.executions.put(execution_id, msgspec.structs.replace(entry, last=record.offset, **changes))
