"""Typed events, their enums and the inputs of mutations."""

from msgspec import UNSET, UnsetType

from circuit_breaker_sdk.events.base import JSON, Event, JSONInput, OpenEnum
from circuit_breaker_sdk.events.workflows import (
    Activity,
    ActivityInput,
    AutoTransition,
    AutoTransitionInput,
    HistoryEntry,
    Resource,
    State,
    StateConfig,
    StateConfigInput,
    StateInput,
    StateNotifications,
    StateNotificationsInput,
    StateType,
    Workflow,
    WorkflowEvent,
    WorkflowEventType,
    WorkflowInput,
)

__all__ = [
    "JSON",
    "UNSET",
    "Activity",
    "ActivityInput",
    "AutoTransition",
    "AutoTransitionInput",
    "Event",
    "HistoryEntry",
    "JSONInput",
    "OpenEnum",
    "Resource",
    "State",
    "StateConfig",
    "StateConfigInput",
    "StateInput",
    "StateNotifications",
    "StateNotificationsInput",
    "StateType",
    "UnsetType",
    "Workflow",
    "WorkflowEvent",
    "WorkflowEventType",
    "WorkflowInput",
]
