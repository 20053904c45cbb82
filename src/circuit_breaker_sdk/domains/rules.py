# Written by scripts/generate_sdk.py from the server's schema: change that, then `make generate`.
"""The domain of rules: ``client.rules``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

from msgspec import UNSET, UnsetType

from circuit_breaker_sdk.domains.execution import Executor
from circuit_breaker_sdk.events.base import JSONInput
from circuit_breaker_sdk.events.rules import Rule, RuleConditionInput, RuleEvaluationResult

__all__ = ["RulesClient"]

_RULE = """
query Rule($id: String!) { rule(id: $id) { id name description condition { conditionType field value
substring rules { id name description condition { conditionType field value substring rules { id name
description condition { conditionType field value substring script } version createdAt updatedAt
createdBy tags } rule { id name description condition { conditionType field value substring script }
version createdAt updatedAt createdBy tags } script } version createdAt updatedAt createdBy tags } rule
{ id name description condition { conditionType field value substring rules { id name description
condition { conditionType field value substring script } version createdAt updatedAt createdBy tags }
rule { id name description condition { conditionType field value substring script } version createdAt
updatedAt createdBy tags } script } version createdAt updatedAt createdBy tags } script } version
createdAt updatedAt createdBy tags } }
"""

_RULES = """
query Rules($tags: [String!], $first: Int, $after: String) { rules(tags: $tags, first: $first, after:
$after) { id name description condition { conditionType field value substring rules { id name
description condition { conditionType field value substring rules { id name description condition {
conditionType field value substring script } version createdAt updatedAt createdBy tags } rule { id name
description condition { conditionType field value substring script } version createdAt updatedAt
createdBy tags } script } version createdAt updatedAt createdBy tags } rule { id name description
condition { conditionType field value substring rules { id name description condition { conditionType
field value substring script } version createdAt updatedAt createdBy tags } rule { id name description
condition { conditionType field value substring script } version createdAt updatedAt createdBy tags }
script } version createdAt updatedAt createdBy tags } script } version createdAt updatedAt createdBy
tags } }
"""

_WORKFLOW_RULES = """
query WorkflowRules($workflowId: String!) { workflowRules(workflowId: $workflowId) { id name description
condition { conditionType field value substring rules { id name description condition { conditionType
field value substring rules { id name description condition { conditionType field value substring script
} version createdAt updatedAt createdBy tags } rule { id name description condition { conditionType
field value substring script } version createdAt updatedAt createdBy tags } script } version createdAt
updatedAt createdBy tags } rule { id name description condition { conditionType field value substring
rules { id name description condition { conditionType field value substring script } version createdAt
updatedAt createdBy tags } rule { id name description condition { conditionType field value substring
script } version createdAt updatedAt createdBy tags } script } version createdAt updatedAt createdBy
tags } script } version createdAt updatedAt createdBy tags } }
"""

_CREATE_RULE = """
mutation CreateRule($input: RuleInput!) { createRule(input: $input) { id name description condition {
conditionType field value substring rules { id name description condition { conditionType field value
substring rules { id name description condition { conditionType field value substring script } version
createdAt updatedAt createdBy tags } rule { id name description condition { conditionType field value
substring script } version createdAt updatedAt createdBy tags } script } version createdAt updatedAt
createdBy tags } rule { id name description condition { conditionType field value substring rules { id
name description condition { conditionType field value substring script } version createdAt updatedAt
createdBy tags } rule { id name description condition { conditionType field value substring script }
version createdAt updatedAt createdBy tags } script } version createdAt updatedAt createdBy tags }
script } version createdAt updatedAt createdBy tags } }
"""

_UPDATE_RULE = """
mutation UpdateRule($id: String!, $input: RuleInput!) { updateRule(id: $id, input: $input) { id name
description condition { conditionType field value substring rules { id name description condition {
conditionType field value substring rules { id name description condition { conditionType field value
substring script } version createdAt updatedAt createdBy tags } rule { id name description condition {
conditionType field value substring script } version createdAt updatedAt createdBy tags } script }
version createdAt updatedAt createdBy tags } rule { id name description condition { conditionType field
value substring rules { id name description condition { conditionType field value substring script }
version createdAt updatedAt createdBy tags } rule { id name description condition { conditionType field
value substring script } version createdAt updatedAt createdBy tags } script } version createdAt
updatedAt createdBy tags } script } version createdAt updatedAt createdBy tags } }
"""

_DELETE_RULE = """
mutation DeleteRule($id: String!) { deleteRule(id: $id) }
"""

_EVALUATE_RULE = """
mutation EvaluateRule($input: RuleEvaluationInput!) { evaluateRule(input: $input) { ruleId passed reason
details subResults { ruleId passed reason details subResults { ruleId passed reason details subResults {
ruleId passed reason details } } } } }
"""


@final
class RulesClient:
    """Queries, mutations and streams of rules.

    What is left ``UNSET`` is not sent; ``None`` is null. Every query and mutation raises ``OperationError``
    where the server answers with errors (see its ``code``), and ``ConnectionFailed`` and its kin where no
    answer came: then a mutation was executed whole or not at all.
    """

    def __init__(self, executor: Executor) -> None:
        self._executor = executor

    async def rule(self, *, id: str) -> Rule | None:
        """A rule; null if there is none of this id."""
        variables: dict[str, object] = {"id": id}
        return await self._executor.optional(_RULE, variables, type=Rule, operation_name="Rule")

    async def rules(
        self,
        *,
        tags: Sequence[str] | UnsetType | None = UNSET,
        first: int | UnsetType | None = UNSET,
        after: str | UnsetType | None = UNSET,
    ) -> list[Rule]:
        """The rules that have all the tags, in the order of their creation; without tags all rules.

        :param first: The number of items at most: 1 to 1,000, which is the default.
        :param after: The id of the item before them: the last one of the page before.
        """
        variables: dict[str, object] = {"tags": tags, "first": first, "after": after}
        return await self._executor.field(_RULES, variables, type=list[Rule], operation_name="Rules")

    async def workflow_rules(self, *, workflow_id: str) -> list[Rule]:
        """The rules that the activities of a workflow name in their conditions, each once, in that order."""
        variables: dict[str, object] = {"workflowId": workflow_id}
        return await self._executor.field(
            _WORKFLOW_RULES, variables, type=list[Rule], operation_name="WorkflowRules"
        )

    async def create_rule(
        self,
        *,
        name: str,
        description: str,
        condition: RuleConditionInput,
        tags: Sequence[str] | UnsetType | None = UNSET,
    ) -> Rule:
        """Stores a rule.

        Conditions of activities name it as ``rule:ID``.

        :param name: 1 to 256 characters.
        :param description: At most 10000 characters.
        :param tags: At most 50, each once.
        """
        variables: dict[str, object] = {
            "input": {"name": name, "description": description, "condition": condition, "tags": tags}
        }
        return await self._executor.field(_CREATE_RULE, variables, type=Rule, operation_name="CreateRule")

    async def update_rule(
        self,
        *,
        id: str,
        name: str,
        description: str,
        condition: RuleConditionInput,
        tags: Sequence[str] | UnsetType | None = UNSET,
    ) -> Rule:
        """Replaces the whole of a rule: tags left out are none.

        From then on it binds the activities that name it. If two updates of one rule meet, one of them is
        refused (CONFLICT).

        :param name: 1 to 256 characters.
        :param description: At most 10000 characters.
        :param tags: At most 50, each once.
        """
        variables: dict[str, object] = {
            "id": id,
            "input": {"name": name, "description": description, "condition": condition, "tags": tags},
        }
        return await self._executor.field(_UPDATE_RULE, variables, type=Rule, operation_name="UpdateRule")

    async def delete_rule(self, *, id: str) -> bool:
        """Deletes a rule and answers true.

        A rule that a workflow names is kept (CONFLICT, ``workflowId`` says which).
        """
        variables: dict[str, object] = {"id": id}
        return await self._executor.field(_DELETE_RULE, variables, type=bool, operation_name="DeleteRule")

    async def evaluate_rule(
        self, *, rule_id: str, data: JSONInput, metadata: JSONInput | UnsetType = UNSET
    ) -> RuleEvaluationResult:
        """Tells whether a rule passes for data and metadata, and why.

        Nothing is changed.

        :param data: An object of at most 256 KiB.
        :param metadata: An object of at most 256 KiB; left out or null: empty.
        """
        variables: dict[str, object] = {"input": {"ruleId": rule_id, "data": data, "metadata": metadata}}
        return await self._executor.field(
            _EVALUATE_RULE, variables, type=RuleEvaluationResult, operation_name="EvaluateRule"
        )
