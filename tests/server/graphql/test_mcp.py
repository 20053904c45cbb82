"""MCP servers and sessions through the schema."""

from __future__ import annotations

from joserfc.jwk import RSAKey

from tests.server.graphql.graph import serving

CREATE = """
    mutation($input: CreateMcpServerInput!) { it: createMcpServer(input: $input) {
        __typename id status enabled tags health { status } capabilities { protocolVersion }
        config { timeoutSeconds maxConnections headers retry { maxAttempts } }
        auth { ... on McpJwtConfig { issuer algorithm } ... on McpOAuthConfig { clientId } }
        audit { version createdAt }
    } }"""


def given(**more: object) -> dict[str, object]:
    return {
        "name": "tools",
        "type": "LOCAL",
        "tenantId": "acme",
        "config": {"endpoint": "http://127.0.0.1:9/mcp"},
        "enabled": False,
        **more,
    }


async def test_a_server_is_made_and_found_with_the_defaults_of_the_schema() -> None:
    key = RSAKey.generate_key(2048).as_pem(private=False).decode()
    async with serving() as graph:
        auth = {"jwt": {"issuer": "us", "publicKey": key}}
        made = (await graph.data(CREATE, {"input": given(auth=auth)}))["it"]
        assert isinstance(made, dict)
        server_id = made.pop("id")
        assert made == {
            "__typename": "McpServer",
            "status": "UNKNOWN",
            "enabled": False,
            "tags": [],
            "health": None,
            "capabilities": None,
            "config": {
                "timeoutSeconds": 30,
                "maxConnections": 10,
                "headers": None,
                "retry": {"maxAttempts": 3},
            },
            "auth": {"issuer": "us", "algorithm": "RS256"},
            "audit": {"version": 1, "createdAt": made["audit"]["createdAt"]},
        }
        query = """{ mcpServers(type: LOCAL, status: UNKNOWN) { totalCount edges { node { id } } }
            mcpServersByTenant(tenantId: "other") { totalCount }
            mcpOAuthProviders { id type } mcpSessions { totalCount } }"""
        assert await graph.data(query) == {
            "mcpServers": {"totalCount": 1, "edges": [{"node": {"id": server_id}}]},
            "mcpServersByTenant": {"totalCount": 0},
            "mcpOAuthProviders": [
                {"id": name, "type": name.upper()} for name in ("gitlab", "github", "google", "microsoft")
            ],
            "mcpSessions": {"totalCount": 0},
        }


async def test_nulls_stand_for_the_defaults() -> None:
    nulls = dict.fromkeys(("timeoutSeconds", "maxConnections", "ssl", "retry", "rateLimit", "headers"))
    config = {"endpoint": "http://127.0.0.1:9/mcp", **nulls}
    async with serving() as graph:
        made = (await graph.data(CREATE, {"input": given(config=config, tags=None, metadata=None)}))["it"]
        assert isinstance(made, dict)
        assert made["config"]["timeoutSeconds"] == 30


async def test_what_is_missing_of_the_wrong_type_or_not_there_is_refused_with_a_code() -> None:
    async with serving() as graph:
        for bad in ({"type": "MOON"}, {"name": None}, {"config": {"timeoutSeconds": "x"}}, {"tags": [1]}):
            error = await graph.error(CREATE, {"input": given(**bad)})
            assert error["extensions"] == {"code": "INVALID_INPUT"}
        for call in (
            'deleteMcpServer(id: "x") { success }',
            'toggleMcpServer(id: "x", enabled: true) { id }',
            'testMcpConnection(serverId: "x") { success }',
            'refreshMcpSession(sessionId: "x") { id }',
            'revokeMcpSession(sessionId: "x") { success }',
            'authenticateMcpJwt(input: {serverId: "x", userId: "u", token: "t"}) { id }',
            'initiateMcpOAuth(input: {serverId: "x", userId: "u"}) { state }',
            'completeMcpOAuth(input: {serverId: "x", userId: "u", code: "c", state: "s"}) { id }',
        ):
            error = await graph.error(f"mutation {{ {call} }}")
            assert isinstance(error["extensions"], dict)
            assert error["extensions"]["code"] == "NOT_FOUND", call
