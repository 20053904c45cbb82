"""The state of rules, and which workflows name them."""

from __future__ import annotations

from typing import final

import msgspec

from circuit_breaker_server.engine.rules.conditions import Rule
from circuit_breaker_server.engine.rules.records import (
    RuleCreated,
    RuleDeleted,
    RuleImage,
    RuleUpdated,
    decode_body,
)
from circuit_breaker_server.engine.state_tables import Entry, Table, TablePart
from circuit_breaker_server.engine.workflows.records import WorkflowCreated
from circuit_breaker_server.engine.workflows.records import decode_body as decode_workflow_body
from circuit_breaker_server.engine.workflows.workflow import Workflow
from circuit_breaker_server.log.event_log import LogCorruptError, Record

__all__ = ["RuleEntry", "RuleState"]


@final
class RuleEntry(Entry, frozen=True, kw_only=True):
    """A rule as its last record left it.

    :ivar last: the offset of that record.
    """

    last: int
    rule: RuleImage


@final
class NamingEntry(Entry, frozen=True, kw_only=True):
    """The rules that a workflow's activities name."""

    rule_ids: tuple[str, ...]


@final
class RuleState(TablePart):
    """Rules by id, and by workflow the rules it names."""

    tokens = frozenset({"rule", "workflow"})

    def __init__(self) -> None:
        self.rules: Table[RuleEntry] = Table("rule", RuleEntry)
        self.naming: Table[NamingEntry] = Table("rulenaming", NamingEntry)
        super().__init__(self.rules, self.naming)

    def find(self, rule_id: str) -> Rule | None:
        """Return the condition of a rule as it is now."""
        entry = self.rules.get(rule_id)
        return None if entry is None else entry.rule.condition

    def workflow_naming(self, rule_id: str) -> str | None:
        """Return the id of a workflow that names a rule, the oldest if there are several."""
        naming = (id_ for id_, entry in self.naming.items() if rule_id in entry.rule_ids)
        return next(naming, None)

    def apply(self, record: Record) -> None:
        """Apply a record of a rule, or of a workflow."""
        if record.subject.startswith("workflow."):
            self._note_names(record)
            return
        body = decode_body(record)
        match body:
            case RuleCreated(rule=rule):
                self.rules.put(rule.id, RuleEntry(created=record.offset, last=record.offset, rule=rule))
            case RuleUpdated(rule=rule):
                old = self.rules.get(rule.id)
                if old is None:
                    raise LogCorruptError(f"record {record.offset} changes a rule that no record created")
                self.rules.put(rule.id, msgspec.structs.replace(old, last=record.offset, rule=rule))
            case RuleDeleted(id=id_):
                self.rules.remove(id_)

    def _note_names(self, record: Record) -> None:
        body = decode_workflow_body(record)
        if isinstance(body, WorkflowCreated):
            workflow = Workflow(body.workflow, created=record.offset, last=record.offset)
            if workflow.rule_ids:
                entry = NamingEntry(created=record.offset, rule_ids=workflow.rule_ids)
                self.naming.put(body.workflow.id, entry)
