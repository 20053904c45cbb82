"""Root fields of rules."""

from __future__ import annotations

from collections.abc import Mapping

from circuit_breaker_server.engine.command import Value
from circuit_breaker_server.engine.engine import Engine
from circuit_breaker_server.engine.rules.inputs import EvaluationInput, RuleInput
from circuit_breaker_server.graphql.roots.arguments import (
    Arguments,
    List,
    Mutation,
    Query,
    input_of,
    text,
    texts,
)

__all__ = ["LISTS", "MUTATIONS", "QUERIES"]

LISTS: Mapping[str, List] = {
    "rules": lambda engine, given, _may_see: engine.rules.rules(texts(given, "tags")),
}


async def _evaluate(engine: Engine, given: Arguments) -> Value:
    return engine.rules.evaluate(input_of(given, EvaluationInput))


QUERIES: Mapping[str, Query] = {
    "rule": lambda engine, given: engine.rules.rule(text(given, "id")),
    "workflowRules": lambda engine, given: engine.rules.named(
        engine.workflows.rule_ids(text(given, "workflowId"))
    ),
}

MUTATIONS: Mapping[str, Mutation] = {
    "createRule": lambda engine, given: engine.rules.create_rule(input_of(given, RuleInput)),
    "updateRule": lambda engine, given: engine.rules.update_rule(
        text(given, "id"), input_of(given, RuleInput)
    ),
    "deleteRule": lambda engine, given: engine.rules.delete_rule(text(given, "id")),
    "evaluateRule": _evaluate,
}
