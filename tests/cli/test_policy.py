"""``policy check`` tells what is wrong with a policy, and what a principal can reach."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.cli.process import complain, running

ROOT = Path(__file__).parents[2]
POLICY = """
[roles.viewer]
scopes = ["workflow:read:wf_*", "cost:read:self"]
[principals.user-7]
tenant = "acme"
roles = ["viewer"]
scopes = ["workflow:write:wf_1"]
[principals.admin]
tenant = "acme"
scopes = ["provider:admin:*", "mcp:admin:server/*"]
[principals.operator]
tenant = "*"
scopes = [
    "workflow:admin:*", "nats:write:*", "agent:admin:*", "llm:write:*", "provider:admin:*", "cost:admin:*",
    "mcp:admin:*", "rule:admin:*", "log:read:*",
]
[principals.named]
tenant = "acme"
[principals.gone]
disabled = true
"""


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    path = tmp_path / "policy.toml"
    path.write_text(POLICY)
    return path


def check(policy: Path, *options: str) -> list[str]:
    with running("policy", "check", str(policy), *options) as command:
        assert command.end() == 0, command.err
        assert command.err == []
        return command.out


def reach(policy: Path, principal: str) -> dict[str, Any]:
    (line,) = check(policy, "--principal", principal, "--json")
    found: dict[str, Any] = json.loads(line)
    return found


def test_a_valid_policy_is_told_with_its_version(policy: Path) -> None:
    (line,) = check(policy)
    assert re.fullmatch(r"valid: .*/policy\.toml \(version [0-9a-f]{12}\)", line)
    (as_json,) = check(policy, "--json")
    assert json.loads(as_json) == {"file": str(policy), "version": line[-13:-1]}


def test_the_reach_of_a_principal_is_told_by_kind_and_by_field(policy: Path) -> None:
    assert check(policy, "--principal", "user-7")[1:] == [
        "principal: user-7 is named",
        "tenant: acme",
        "workflow: read wf_*; write wf_1",
        "agent: nothing",
        "llm: nothing",
        "provider: nothing",
        "cost: read user/user-7",
        "mcp: nothing",
        "rule: nothing",
        "nats: nothing",
        "log: nothing",
        (
            "queries (10 of 30): health, budgetStatus, costAnalytics, workflow, workflows, resource, "
            "resources, availableActivities, state, workflowStates"
        ),
        "mutations (3 of 32): triggerStateAgents, createResource, executeActivity",
        "subscriptions (3 of 9): costUpdates, resourceUpdates, workflowEvents",
    ]


def test_the_fields_of_a_reach_have_the_scopes_that_their_inputs_take(policy: Path) -> None:
    found = reach(policy, "user-7")
    assert (found["principal"], found["standing"], found["tenant"]) == ("user-7", "named", "acme")
    assert found["kinds"]["workflow"] == {"read": ["wf_*"], "write": ["wf_1"], "admin": []}
    assert found["kinds"]["provider"] == {"read": [], "write": [], "admin": []}
    assert found["queries"]["workflow"] == {"id": "workflow: workflow:read"}
    assert found["queries"]["health"] == {}
    assert found["mutations"]["createResource"] == {
        "input.workflowId": "workflow: workflow:write",
        "input.initialState": "state: of the workflow that is named beside it",
    }
    assert found["subscriptions"]["costUpdates"]["userId"] == "account: cost:read:user/ID"


def test_a_tenants_admin_reaches_providers_and_mcp_servers_but_no_sessions(policy: Path) -> None:
    found = reach(policy, "admin")
    assert {"configureLlmProvider", "createMcpServer", "deleteMcpServer"} <= found["mutations"].keys()
    assert found["mutations"].keys().isdisjoint({"initiateMcpOAuth", "revokeMcpSession", "createWorkflow"})
    assert {"llmProvider", "llmProviders", "mcpServers"} <= found["queries"].keys()
    assert "mcpSessions" not in found["queries"]
    assert list(found["subscriptions"]) == ["mcpServerStatusUpdates", "mcpCapabilityUpdates"]


def test_the_operator_reaches_every_field_in_every_tenant(policy: Path) -> None:
    lines = check(policy, "--principal", "operator")
    assert "tenant: every" in lines
    assert [line.partition(":")[0] for line in lines[-3:]] == [
        "queries (30 of 30)",
        "mutations (32 of 32)",
        "subscriptions (9 of 9)",
    ]


def test_a_principal_without_scopes_reaches_what_needs_none(policy: Path) -> None:
    found = reach(policy, "named")
    assert (list(found["queries"]), found["mutations"], found["subscriptions"]) == (["health"], {}, {})


@pytest.mark.parametrize(
    ("principal", "standing", "told"),
    [
        ("gone", "disabled", "is disabled: may do nothing"),
        ("x", "unknown", "is not named, and there is no [anyone]: may do nothing"),
    ],
)
def test_a_principal_that_is_disabled_or_unknown_has_no_tenant(
    policy: Path, principal: str, standing: str, told: str
) -> None:
    assert check(policy, "--principal", principal)[1:] == [f"principal: {principal} {told}"]
    found = reach(policy, principal)
    assert (found["standing"], found["tenant"]) == (standing, None)
    assert found["mutations"] == found["subscriptions"] == {}


def test_a_disabled_principal_reaches_no_field(policy: Path) -> None:
    assert reach(policy, "gone")["queries"] == {}


def test_everything_wrong_with_a_policy_has_a_line(tmp_path: Path) -> None:
    path = tmp_path / "policy.toml"
    path.write_text(POLICY + "colour = 1\n[anyone]\nroles = ['vewer']\ntenant = 'public'\n")
    with running("policy", "check", str(path)) as command:
        assert command.end() == 1
        assert command.out == []
        assert [line.partition(": unknown")[0] for line in command.err] == [
            f"error: {path}: principals.gone.colour",
            f"error: {path}: anyone.roles[0]",
        ]
    status, line = complain("policy", "check", str(tmp_path / "none.toml"))
    assert status == 1
    assert "none.toml: cannot be read (No such file" in line
