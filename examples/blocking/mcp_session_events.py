"""Sign a user in at an MCP server, and out again, without asyncio: python mcp_session_events.py [URL]."""

import sys
import time

from joserfc import jwt
from joserfc.jwk import ECKey

from circuit_breaker_sdk import SyncClient
from circuit_breaker_sdk.events import MCPJwtConfigInput
from circuit_breaker_sdk.types import MCPServerConfigInput, MCPServerType, MCPSessionEventType

URL = sys.argv[1] if len(sys.argv) > 1 else "ws://localhost:4000/graphql"
ISSUER, KEY = "https://issuer.example", ECKey.generate_key("P-256")

with SyncClient(URL) as client:
    server = client.mcp.create_server(
        name="Tools", type=MCPServerType.LOCAL, tenant_id="acme",
        config=MCPServerConfigInput(endpoint="http://127.0.0.1:1/mcp", timeout_seconds=1),
    )  # fmt: skip
    public_key = KEY.as_pem(private=False).decode()
    sign_in = MCPJwtConfigInput(issuer=ISSUER, public_key=public_key, algorithm="ES256")
    client.mcp.configure_jwt(server_id=server.id, config=sign_in)
    with client.mcp.subscribe_session_events(user_id="ada") as events:
        claims = {"iss": ISSUER, "sub": "ada", "exp": int(time.time()) + 60}
        token = jwt.encode({"alg": "ES256"}, claims, KEY)
        session = client.mcp.authenticate_jwt(server_id=server.id, user_id="ada", token=token)
        client.mcp.revoke_session(session_id=session.id)
        for event in events:
            print(event.type, event.session.user_id, event.session.status)
            if event.type == MCPSessionEventType.REVOKED:
                break
