"""Watch an MCP server that is not there, without asyncio: python mcp_server_status.py [URL]."""

import sys

from circuit_breaker_sdk import SyncClient
from circuit_breaker_sdk.types import MCPServerConfigInput, MCPServerStatus, MCPServerType

URL = sys.argv[1] if len(sys.argv) > 1 else "ws://localhost:4000/graphql"

with SyncClient(URL) as client:
    with client.mcp.subscribe_server_status_updates() as updates:
        # Nobody listens at this port: the check that follows finds that out.
        server = client.mcp.create_server(
            name="Nowhere",
            type=MCPServerType.LOCAL,
            tenant_id="acme",
            config=MCPServerConfigInput(endpoint="http://127.0.0.1:1/mcp", timeout_seconds=2),
        )
        for update in updates:
            print(update.old_status, "->", update.new_status)
            if update.new_status == MCPServerStatus.ERROR:
                break
    health = client.mcp.server_health(server_id=server.id)
    print(health.error)
