"""The inputs of the commands, as the schema's input types have them; not yet checked."""

from __future__ import annotations

from typing import final

import msgspec

__all__ = ["CreateInstance", "ExecuteWithNats"]


@final
class CreateInstance(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """``CreateWorkflowInstanceInput``."""

    workflow_id: str
    initial_data: object = None
    metadata: object = None
    triggered_by: str | None = None


@final
class ExecuteWithNats(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """``ExecuteActivityWithNatsInput``."""

    resource_id: str
    activity_id: str
    new_state: str
    triggered_by: str | None = None
    data: object = None
