"""The definition of a workflow, in the form that records, snapshots and answers hold."""

from __future__ import annotations

import enum
from typing import final

import msgspec

__all__ = [
    "ActivityDefinition",
    "AutoTransition",
    "Notifications",
    "StateConfig",
    "StateDefinition",
    "StateType",
    "WorkflowDefinition",
]


class StateType(enum.StrEnum):
    """``enum StateType`` of the schema."""

    NORMAL = "NORMAL"
    INITIAL = "INITIAL"
    TERMINAL = "TERMINAL"
    ERROR = "ERROR"
    WAITING = "WAITING"
    REVIEW = "REVIEW"


@final
class AutoTransition(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """``AutoTransitionConfigGQL``; kept only while it is off."""

    enabled: bool
    delay_seconds: int
    target_state: str
    conditions: tuple[str, ...]


@final
class Notifications(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """``StateNotificationConfigGQL``; kept only while it is off."""

    enabled: bool
    channels: tuple[str, ...]
    templates: object = None


@final
class StateConfig(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """``StateConfigGQL``; ``None`` means not set."""

    timeout_seconds: int | None = None
    auto_transition: AutoTransition | None = None
    notifications: Notifications | None = None
    metadata: object = None


@final
class StateDefinition(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The stored part of ``StateGQL``; transitions and activities are computed from the workflow's."""

    id: str
    name: str
    description: str | None
    state_type: StateType
    is_initial: bool
    is_terminal: bool
    config: StateConfig | None
    created_at: str
    updated_at: str


@final
class ActivityDefinition(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """``ActivityGQL``; its conditions are written as :mod:`circuit_breaker_server.engine.rules` says."""

    id: str
    name: str | None
    from_states: tuple[str, ...]
    to_state: str
    conditions: tuple[str, ...]
    description: str | None


@final
class WorkflowDefinition(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A workflow as it was created, or as later records left it."""

    id: str
    name: str
    description: str | None
    states: tuple[StateDefinition, ...]
    activities: tuple[ActivityDefinition, ...]
    initial_state: str
    created_at: str
    updated_at: str
