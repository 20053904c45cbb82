"""The records of rules."""

from __future__ import annotations

from typing import final

import msgspec

from circuit_breaker_server.engine.record_bodies import VersionedBody, decode_as
from circuit_breaker_server.engine.rules.conditions import Rule
from circuit_breaker_server.log.event_log import Record, subject

__all__ = ["Body", "RuleCreated", "RuleDeleted", "RuleImage", "RuleUpdated", "decode_body", "rule_subject"]


def rule_subject(rule_id: str) -> str:
    """Name the subject of a rule's records."""
    return subject("rule", rule_id)


@final
class RuleImage(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A rule after a change.

    :ivar version: 1 for a new rule, one more for each update.
    """

    id: str
    name: str
    description: str
    condition: Rule
    version: int
    created_at: str
    updated_at: str
    tags: tuple[str, ...]


@final
class RuleCreated(VersionedBody, frozen=True, kw_only=True, tag="rule_created"):
    """By ``createRule``."""

    rule: RuleImage


@final
class RuleUpdated(VersionedBody, frozen=True, kw_only=True, tag="rule_updated"):
    """By ``updateRule``; ``rule`` is the whole rule after the change."""

    rule: RuleImage


@final
class RuleDeleted(VersionedBody, frozen=True, kw_only=True, tag="rule_deleted"):
    """By ``deleteRule``."""

    id: str
    at: str


Body = RuleCreated | RuleUpdated | RuleDeleted

_DECODER: msgspec.json.Decoder[Body] = msgspec.json.Decoder(Body)


def decode_body(record: Record) -> Body:
    """Read a record's body, brought up to date.

    :raises LogCorruptError: the body is of a newer version, of an unknown type, or no body at all.
    """
    return decode_as(_DECODER, record)
