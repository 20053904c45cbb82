"""MCP servers in the demo: a real one that is switched, stopped and started; sessions that come and go."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Hashable
from itertools import count, pairwise
from typing import Final, final

from joserfc import jwt
from joserfc.jwk import ECKey

from circuit_breaker_sdk.cli.demo.demo_part import Stage
from circuit_breaker_sdk.cli.demo.judge import Ticket
from circuit_breaker_sdk.cli.event_rendering import words_of_server_status, words_of_session
from circuit_breaker_sdk.errors import CircuitBreakerError
from circuit_breaker_sdk.events import (
    MCPAuthConfigInput,
    MCPJwtConfigInput,
    MCPRetryConfigInput,
    MCPServerConfigInput,
    MCPServerStatus,
    MCPServerStatusUpdate,
    MCPServerType,
    MCPSession,
    MCPSessionEvent,
)

__all__ = ["MCPServers", "session_value", "status_value"]

_EVERYTHING: Final = "all"
_ISSUER: Final = "https://demo.example"
_USER, _GUEST = "ada", "guest"
_GUEST_SECONDS: Final = 1
_PAUSE_SECONDS = 0.15
_PATIENCE_SECONDS = 10.0
_ROUNDS_A_RESTART = 4


class MCPDemoError(CircuitBreakerError):
    """The demo's MCP server did not do what it should."""


@final
class MCPServers:
    """A real MCP server and two users of it, round after round."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._key = ECKey.generate_key("P-256")
        self._process: asyncio.subprocess.Process | None = None
        self._port = 0
        self._server_id = ""
        self._guests_id = ""

    async def prepare(self) -> None:
        """Start the server's process, subscribe, and register it; it is online when this returns."""
        stage, client = self._stage, self._stage.client
        stage.at_end(self._stop_process)
        starting = asyncio.create_task(self._start_process())
        await stage.subscribe(
            "mcpServerStatusUpdates",
            _EVERYTHING,
            client.mcp.subscribe_server_status_updates(),
            client.subscriptions.mcp_server_status_updates(),
            value_of=status_value,
            words_of=words_of_server_status,
        )
        for user in (_USER, _GUEST):
            await stage.subscribe(
                "mcpSessionEvents",
                user,
                client.mcp.subscribe_session_events(user_id=user),
                client.subscriptions.mcp_session_events(user_id=user),
                value_of=session_value,
                words_of=words_of_session,
            )
        await starting
        self._server_id = await self._register("demo tools", expiration_seconds=3600)
        self._guests_id = await self._register("guests' tools", expiration_seconds=_GUEST_SECONDS)

    async def _register(self, name: str, *, expiration_seconds: int) -> str:
        """Register the process as an MCP server whose sessions last so long; wait until it is online."""
        ticket = self._stage.ledger.send()
        server = await self._stage.client.mcp.create_server(
            name=name,
            type=MCPServerType.LOCAL,
            tenant_id="demo",
            config=MCPServerConfigInput(
                endpoint=f"http://127.0.0.1:{self._port}/mcp",
                timeout_seconds=5,
                retry=MCPRetryConfigInput(max_attempts=1),
            ),
            auth=MCPAuthConfigInput(
                jwt=MCPJwtConfigInput(
                    issuer=_ISSUER,
                    public_key=self._key.as_pem(private=False).decode(),
                    algorithm="ES256",
                    expiration_seconds=expiration_seconds,
                )
            ),
        )
        self._accept(ticket, server.id, "UNKNOWN", "STARTING")
        self._expect(server.id, "STARTING", "ONLINE")
        await self._until(server.id, MCPServerStatus.ONLINE)
        return server.id

    async def lead(self) -> None:
        """Let sessions come and go, switch the server off and on, stop its process and start it again."""
        often = (self._sessions, self._guest, self._switch)
        for number in count():
            # A process that starts takes a core for half a second: not in every round.
            for step in (*often, self._restart) if number % _ROUNDS_A_RESTART == 0 else often:
                if self._stage.stop.is_set():
                    return
                await step()
                await self._stage.pause(_PAUSE_SECONDS)

    # Sessions ----------------------------------------------------------------------------------------------

    async def _sessions(self) -> None:
        """Sign in, refresh, revoke."""
        ledger, mcp = self._stage.ledger, self._stage.client.mcp
        session = await self._authenticate(self._server_id, _USER)
        ticket = ledger.send()
        await mcp.refresh_session(session_id=session.id)
        ledger.accepted(ticket, {("mcpSessionEvents", _USER): [(session.id, "REFRESHED")]})
        ticket = ledger.send()
        await mcp.revoke_session(session_id=session.id)
        ledger.accepted(ticket, {("mcpSessionEvents", _USER): [(session.id, "REVOKED")]})

    async def _guest(self) -> None:
        """Sign a guest in whose session is over by itself."""
        session = await self._authenticate(self._guests_id, _GUEST)
        self._stage.ledger.expected({("mcpSessionEvents", _GUEST): [(session.id, "EXPIRED")]})
        await self._stage.pause(_GUEST_SECONDS)

    async def _authenticate(self, server_id: str, user: str) -> MCPSession:
        now = int(time.time())
        claims = {"iss": _ISSUER, "sub": user, "iat": now, "exp": now + 3600}
        token = jwt.encode({"alg": "ES256"}, claims, self._key)
        ticket = self._stage.ledger.send()
        session = await self._stage.client.mcp.authenticate_jwt(
            server_id=server_id, user_id=user, token=token
        )
        self._stage.ledger.accepted(ticket, {("mcpSessionEvents", user): [(session.id, "CREATED")]})
        return session

    # The server --------------------------------------------------------------------------------------------

    async def _switch(self) -> None:
        """Switch it off and on again."""
        ledger, mcp = self._stage.ledger, self._stage.client.mcp
        ticket = ledger.send()
        await mcp.toggle_server(id=self._server_id, enabled=False)
        self._accept(ticket, self._server_id, "ONLINE", "STOPPING", "OFFLINE")
        ticket = ledger.send()
        await mcp.toggle_server(id=self._server_id, enabled=True)
        self._accept(ticket, self._server_id, "OFFLINE", "STARTING")
        self._expect(self._server_id, "STARTING", "ONLINE")
        await self._until(self._server_id, MCPServerStatus.ONLINE)

    async def _restart(self) -> None:
        """Stop its process, and start it again: what the tests of the connection find is an event each."""
        ledger, mcp = self._stage.ledger, self._stage.client.mcp
        await self._stop_process()
        ticket = ledger.send()
        failed = await mcp.test_connection(server_id=self._server_id)
        self._accept(ticket, self._server_id, "ONLINE", "ERROR")
        if failed.success:
            raise MCPDemoError("the stopped MCP server was found online")
        await self._start_process()
        ticket = ledger.send()
        await mcp.test_connection(server_id=self._server_id)
        self._accept(ticket, self._server_id, "ERROR", "STARTING", "ONLINE")

    def _accept(self, ticket: Ticket, server_id: str, *way: str) -> None:
        """Book a mutation that moves a server along this way."""
        owed = [(server_id, old, new) for old, new in pairwise(way)]
        self._stage.ledger.accepted(ticket, {("mcpServerStatusUpdates", _EVERYTHING): owed})

    def _expect(self, server_id: str, old: str, new: str) -> None:
        """Book what the check of a server will find."""
        self._stage.ledger.expected({("mcpServerStatusUpdates", _EVERYTHING): [(server_id, old, new)]})

    async def _until(self, server_id: str, status: MCPServerStatus) -> None:
        try:
            async with asyncio.timeout(_PATIENCE_SECONDS):
                while True:
                    server = await self._stage.client.mcp.server(id=server_id)
                    if server is not None and server.status == status:
                        return
                    await asyncio.sleep(0.02)
        except TimeoutError:
            raise MCPDemoError(f"the MCP server was not {status} within {_PATIENCE_SECONDS:g} s") from None

    async def _start_process(self) -> None:
        self._process = process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "circuit_breaker_sdk.cli.demo.mcp_tools",
            str(self._port),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            # A Ctrl-C at the terminal is for the demo: it ends the process itself.
            start_new_session=True,
        )
        if process.stdout is None:
            raise MCPDemoError("the MCP server's output cannot be read")
        async with asyncio.timeout(_PATIENCE_SECONDS):
            line = await process.stdout.readline()
        if not line:
            raise MCPDemoError("the MCP server did not start")
        self._port = int(line)

    async def _stop_process(self) -> None:
        process, self._process = self._process, None
        if process is None or process.returncode is not None:
            return
        process.terminate()
        try:
            async with asyncio.timeout(_PATIENCE_SECONDS):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()


def status_value(update: MCPServerStatusUpdate) -> Hashable:
    """Reduce an update to what the course foretells."""
    return (update.server_id, update.old_status, update.new_status)


def session_value(event: MCPSessionEvent) -> Hashable:
    """Reduce an event to what the course foretells."""
    return (event.session_id, event.type)
