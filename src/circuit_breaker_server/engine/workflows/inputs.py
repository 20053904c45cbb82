"""The inputs of the commands, as the schema's input types have them; not yet checked."""

from __future__ import annotations

from typing import final

import msgspec
from msgspec import UNSET, UnsetType

from circuit_breaker_server.engine.workflows.definitions import StateConfig, StateType

__all__ = [
    "ActivityInput",
    "CreateResource",
    "CreateWorkflow",
    "ExecuteActivity",
    "StateInput",
    "StateUpdate",
]


@final
class StateInput(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """``StateDefinitionInput``."""

    id: str
    name: str
    workflow_id: str
    description: str | None = None
    state_type: StateType
    is_initial: bool | None = False
    is_terminal: bool | None = False
    config: StateConfig | None = None


@final
class StateUpdate(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """``StateUpdateInput``; what is not set stays as it is."""

    name: str | UnsetType | None = UNSET
    description: str | UnsetType | None = UNSET
    state_type: StateType | UnsetType | None = UNSET
    is_terminal: bool | UnsetType | None = UNSET
    config: StateConfig | UnsetType | None = UNSET


@final
class ActivityInput(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """``ActivityDefinitionInput``."""

    id: str
    name: str | None = None
    from_states: tuple[str, ...]
    to_state: str
    conditions: tuple[str, ...] = ()
    description: str | None = None


@final
class CreateWorkflow(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """``WorkflowDefinitionInput``."""

    name: str
    states: tuple[StateInput, ...]
    activities: tuple[ActivityInput, ...]
    initial_state: str
    description: str | None = None


@final
class CreateResource(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """``ResourceCreateInput``."""

    workflow_id: str
    initial_state: str | None = None
    data: object = None
    metadata: object = None


@final
class ExecuteActivity(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """``ActivityExecuteInput``."""

    resource_id: str
    activity_id: str
    data: object = None
