"""Look up agents, their configurations and their runs by id; a missing one is ``NOT_FOUND``."""

from __future__ import annotations

from circuit_breaker_server.engine.agents.records import Agent, StateAgentConfig
from circuit_breaker_server.engine.agents.state import AgentState, ExecutionEntry
from circuit_breaker_server.engine.errors import EngineError, ErrorCode, shown

__all__ = ["find_agent", "find_config", "find_execution"]


def find_agent(state: AgentState, agent_id: str) -> Agent:
    """Return an agent.

    :raises EngineError: ``NOT_FOUND``.
    """
    entry = state.agents.get(agent_id)
    if entry is None:
        raise EngineError(ErrorCode.NOT_FOUND, f"there is no agent {shown(agent_id)}")
    return entry.agent


def find_config(state: AgentState, config_id: str) -> StateAgentConfig:
    """Return a configuration.

    :raises EngineError: ``NOT_FOUND``.
    """
    entry = state.configs.get(config_id)
    if entry is None:
        raise EngineError(ErrorCode.NOT_FOUND, f"there is no configuration {shown(config_id)}")
    return entry.config


def find_execution(state: AgentState, execution_id: str) -> ExecutionEntry:
    """Return a run.

    :raises EngineError: ``NOT_FOUND``.
    """
    entry = state.executions.get(execution_id)
    if entry is None:
        raise EngineError(ErrorCode.NOT_FOUND, f"there is no run {shown(execution_id)}")
    return entry
