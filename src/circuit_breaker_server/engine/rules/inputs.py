"""The inputs of the commands on rules, as the schema's input types have them; not yet checked."""

from __future__ import annotations

from typing import final

import msgspec
from msgspec import UNSET, UnsetType

__all__ = ["ConditionInput", "EvaluationInput", "RuleInput"]


@final
class ConditionInput(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """``RuleConditionInput``; a ``value`` of ``None`` is JSON's null."""

    condition_type: str
    field: str | None = None
    value: object | UnsetType = UNSET
    substring: str | None = None
    rules: tuple[ConditionInput, ...] | None = None
    rule: ConditionInput | None = None
    script: str | None = None


@final
class RuleInput(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """``RuleInput``."""

    name: str
    description: str
    condition: ConditionInput
    tags: tuple[str, ...] | None = None


@final
class EvaluationInput(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """``RuleEvaluationInput``."""

    rule_id: str
    data: object
    metadata: object = None
