"""The GraphQL values of agents and of their configurations."""

from __future__ import annotations

import msgspec

from circuit_breaker_server.engine.agents.records import Agent, StateAgentConfig
from circuit_breaker_server.engine.command import Value

__all__ = ["agent_value", "config_value"]


def agent_value(agent: Agent) -> Value:
    """Return ``AgentDefinitionGQL``."""
    return {
        "id": agent.id,
        "name": agent.name,
        "description": agent.description,
        "llmProvider": {
            "providerType": agent.provider_type,
            "model": agent.model,
            "baseUrl": agent.base_url,
        },
        "llmConfig": msgspec.to_builtins(agent.llm_config),
        "prompts": msgspec.to_builtins(agent.prompts),
        "capabilities": list(agent.capabilities),
        "tools": [],
        "createdAt": agent.created_at,
        "updatedAt": agent.created_at,
    }


def config_value(config: StateAgentConfig) -> Value:
    """Return ``StateAgentConfigGQL``."""
    value: Value = msgspec.to_builtins(config)
    return {**value, "schedule": None, "updatedAt": config.created_at}
