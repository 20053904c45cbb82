"""``client.mcp``: real MCP servers and their sessions, followed through both clients."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from circuit_breaker_sdk import OperationError
from circuit_breaker_sdk.events import (
    MCPJwtConfig,
)
from circuit_breaker_sdk.types import (
    MCPServerStatus,
    MCPServerType,
    MCPSessionEventType,
    MCPSessionStatus,
    PaginationInput,
)
from tests.domains.worlds import create_mcp_server, served, token
from tests.server.engine.mcp.peers import real_server

NEVER = 3600.0


async def test_a_server_that_comes_and_goes_is_followed(tmp_path: Path) -> None:
    async with served(tmp_path, mcp_check_seconds=NEVER) as client:
        own = await client.mcp.subscribe_server_status_updates().subscribe()
        consolidated = await client.subscriptions.mcp_server_status_updates().subscribe()
        seen: list[tuple[MCPServerStatus, MCPServerStatus]] = []

        async def follow(count: int) -> None:
            for _ in range(count):
                update = await anext(own)
                assert await anext(consolidated) == update
                seen.append((update.old_status, update.new_status))

        with real_server("add", "multiply") as port:
            server = await create_mcp_server(client, port)
            await follow(2)
            offer = await client.mcp.server_capabilities(server_id=server.id)
            assert offer is not None
            assert [tool.name for tool in offer.tools] == ["add", "multiply"]
            assert (await client.mcp.test_connection(server_id=server.id)).success
        failed = await client.mcp.test_connection(server_id=server.id)
        assert (failed.success, failed.details.tcp_connection) == (False, False)
        await follow(1)
        assert (await client.mcp.delete_server(id=server.id)).success
        await follow(1)
        states = MCPServerStatus
        assert seen == [
            (states.UNKNOWN, states.STARTING),
            (states.STARTING, states.ONLINE),
            (states.ONLINE, states.ERROR),
            (states.ERROR, states.OFFLINE),
        ]
        assert await client.mcp.server(id=server.id) is None
        await own.unsubscribe()
        await consolidated.unsubscribe()


async def test_a_session_is_followed_from_its_creation_to_its_end(tmp_path: Path) -> None:
    async with served(tmp_path, mcp_check_seconds=NEVER) as client:
        with real_server("add") as port:
            server = await create_mcp_server(client, port)
            own = await client.mcp.subscribe_session_events(user_id="ada").subscribe()
            consolidated = await client.subscriptions.mcp_session_events(server_id=server.id).subscribe()
            session = await client.mcp.authenticate_jwt(
                server_id=server.id, user_id="ada", token=token("ada")
            )
            assert (session.status, session.access_token) == (MCPSessionStatus.ACTIVE, None)
            await client.mcp.refresh_session(session_id=session.id)
            await client.mcp.revoke_session(session_id=session.id)
            events = [await anext(own) for _ in range(3)]
            assert [event.type for event in events] == [
                MCPSessionEventType.CREATED,
                MCPSessionEventType.REFRESHED,
                MCPSessionEventType.REVOKED,
            ]
            assert [await anext(consolidated) for _ in events] == events
            assert {event.user_id for event in events} == {"ada"}
            assert events[-1].session.server.name == "tools"
            page = await client.mcp.sessions(user_id="ada", pagination=PaginationInput(first=1))
            assert (page.total_count, page.edges[0].node.status) == (1, MCPSessionStatus.REVOKED)
            with pytest.raises(OperationError) as refused:
                await client.mcp.authenticate_jwt(server_id=server.id, user_id="bob", token=token("ada"))
            assert refused.value.code == "AUTHENTICATION_FAILED"
            await own.unsubscribe()
            await consolidated.unsubscribe()


async def test_a_session_expires_by_itself(tmp_path: Path) -> None:
    async with served(tmp_path, mcp_check_seconds=NEVER) as client:
        with real_server("add") as port:
            server = await create_mcp_server(client, port, seconds=1)
            events = await client.mcp.subscribe_session_events().subscribe()
            await client.mcp.authenticate_jwt(server_id=server.id, user_id="ada", token=token("ada"))
            async with asyncio.timeout(10):
                kinds = [(await anext(events)).type for _ in range(2)]
            assert kinds == [MCPSessionEventType.CREATED, MCPSessionEventType.EXPIRED]
            await events.unsubscribe()


async def test_servers_are_listed_changed_and_show_no_secret(tmp_path: Path) -> None:
    async with served(tmp_path, mcp_check_seconds=NEVER) as client:
        server = await create_mcp_server(client, 1, enabled=False)
        assert isinstance(server.auth, MCPJwtConfig)
        assert "hush" not in str(server.config.headers)
        found = await client.mcp.servers(type=MCPServerType.LOCAL)
        assert [edge.node.id for edge in found.edges] == [server.id]
        assert (await client.mcp.servers_by_tenant(tenant_id="other")).total_count == 0
        changed = await client.mcp.update_server(id=server.id, name="renamed", tags=[])
        assert (changed.name, changed.tags, changed.audit.version) == ("renamed", (), 2)
        assert (await client.mcp.server_health(server_id=server.id)).error is None
        assert {provider.id for provider in await client.mcp.oauth_providers()} >= {"github", "google"}
        with pytest.raises(OperationError) as missing:
            await client.mcp.toggle_server(id="nothing", enabled=True)
        assert missing.value.code == "NOT_FOUND"
