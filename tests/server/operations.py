"""GraphQL documents and inputs that many tests send to a server."""

from __future__ import annotations

from typing import Final

__all__ = [
    "AGENT",
    "CREATE_AGENT",
    "CREATE_CONFIG",
    "CREATE_RESOURCE",
    "CREATE_RULE",
    "CREATE_SERVER",
    "CREATE_WORKFLOW",
    "EVENTS",
    "EXECUTE",
    "NATS",
    "RULE",
    "TOOLS",
    "TRIGGER",
    "UPDATES",
    "WORKFLOW",
    "config_of",
]

CREATE_WORKFLOW: Final = "mutation($input: WorkflowDefinitionInput!) { createWorkflow(input: $input) { id } }"
CREATE_RESOURCE: Final = "mutation($input: ResourceCreateInput!) { createResource(input: $input) { id } }"
EXECUTE: Final = "mutation($input: ActivityExecuteInput!) { executeActivity(input: $input) { id state } }"
UPDATES: Final = "subscription($id: String) { resourceUpdates(resourceId: $id) { id state } }"
EVENTS: Final = "subscription($id: String!) { workflowEvents(workflowId: $id) { eventType natsSequence } }"
NATS: Final = "subscription($id: String!) { natsResourceStream(workflowId: $id) { sequence } }"
WORKFLOW: Final = {
    "name": "Ping-pong",
    "initialState": "left",
    "states": [
        {"id": name, "name": name, "workflowId": "", "stateType": "NORMAL"} for name in ("left", "right")
    ],
    "activities": [
        {"id": "ping", "fromStates": ["left"], "toState": "right", "conditions": []},
        {"id": "pong", "fromStates": ["right"], "toState": "left", "conditions": []},
    ],
}
CREATE_SERVER: Final = "mutation($input: CreateMcpServerInput!) { createMcpServer(input: $input) { id } }"
TOOLS: Final = {
    "name": "tools",
    "type": "LOCAL",
    "tenantId": "acme",
    "config": {"endpoint": "http://127.0.0.1:9/mcp"},
    "enabled": False,
}
CREATE_AGENT: Final = "mutation($input: AgentDefinitionInput!) { createAgent(input: $input) { id } }"
CREATE_CONFIG: Final = (
    "mutation($input: StateAgentConfigInput!) { createStateAgentConfig(input: $input) { id } }"
)
TRIGGER: Final = (
    "mutation($id: String!) { triggerStateAgents(input: {resourceId: $id}) { id agentId inputData } }"
)
CREATE_RULE: Final = "mutation($input: RuleInput!) { createRule(input: $input) { id } }"
AGENT: Final = {
    "name": "a",
    "description": "",
    "llmProvider": {"providerType": "echo", "model": "echo", "apiKey": ""},
    "llmConfig": {"temperature": 0.0, "stopSequences": []},
    "prompts": {"system": "", "userTemplate": "look"},
    "capabilities": [],
    "tools": [],
}
RULE: Final = {
    "name": "r",
    "description": "",
    "condition": {"conditionType": "FieldExists", "field": "n"},
}


def config_of(agent: str) -> dict[str, object]:
    """Return the input that starts an agent in the state "left"."""
    mapping: dict[str, object] = {"inputMapping": {"n": "$.n"}, "outputMapping": {}}
    return {"stateId": "left", "agentId": agent, **mapping, "enabled": True}
