"""Sessions on real sockets, over the scripted log and gateway; and a client that says what a test says."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import final

import msgspec

from circuit_breaker_sdk.transports.websocket import MessageSink, WebSocket
from circuit_breaker_server.config import RateSettings, ServerSettings
from circuit_breaker_server.endpoints.positions import Positions
from circuit_breaker_server.endpoints.principal_connections import PrincipalConnections
from circuit_breaker_server.endpoints.services import Execute, Services
from circuit_breaker_server.endpoints.websocket.session_registry import Sessions
from circuit_breaker_server.gateway.gateway import Gateway
from circuit_breaker_server.graphql.documents import Document, Documents
from circuit_breaker_server.scheduling import Slices
from circuit_breaker_server.security.authentication import Authenticator
from circuit_breaker_server.security.rate_limits import Rates
from tests.server.gateway.worlds import SCHEMA, Payload, ScriptedLog, derive, select, turns
from tests.transports.peers import CLOSE, SUBPROTOCOL, TEXT, Peer, listen, raw_client

Message = dict[str, object]


async def answer_nothing(_document: Document, *_given: object, **_more: object) -> bytes:
    return b'{"data":{"nothing":null}}'


@final
@dataclass(slots=True)
class Stage:
    """Sessions under test."""

    log: ScriptedLog
    gateway: Gateway
    sessions: Sessions
    sockets: list[WebSocket]
    clients: list[Client]
    port: int

    async def open(self, *, resume: bool = True, init: bool = True) -> Client:
        client = Client(await raw_client(self.port))
        self.clients.append(client)
        assert "101" in await client.peer.read_head()
        if init:
            await client.init(resume=resume)
        return client

    async def until(self, condition: Callable[[], object]) -> None:
        """Let the loop turn until something that a socket brings about is so."""
        async with asyncio.timeout(10):
            while not condition():
                await turns()


@contextlib.asynccontextmanager
async def staged(
    *,
    log: ScriptedLog | None = None,
    execute: Execute = answer_nothing,
    ring_size: int = 1024,
    authenticator: Authenticator | None = None,
    rates: Rates | None = None,
    closing_seconds: float = 1.0,
    subprotocol: str = SUBPROTOCOL,
    positions: Positions | None = None,
    **settings: float,
) -> AsyncIterator[Stage]:
    log = log or ScriptedLog()
    gateway = Gateway(log, derive=derive, select=select, ring_size=ring_size)
    await gateway.start()
    slices = Slices()
    documents = Documents(SCHEMA, slices=slices)
    services = Services(
        gateway=gateway,
        documents=documents,
        execute=execute,
        epoch=log.epoch,
        settings=ServerSettings(data_dir=Path("unused"), **settings),  # type: ignore[arg-type]  # the test's numbers
        authenticator=authenticator or Authenticator(),
        rates=Rates(RateSettings()) if rates is None else rates,
        positions=positions,
    )
    sessions = Sessions(
        services, PrincipalConnections(allowed=services.settings.max_connections_per_principal)
    )
    sockets: list[WebSocket] = []
    clients: list[Client] = []

    def open_sink(socket: WebSocket) -> MessageSink:
        socket.subprotocol = subprotocol
        sockets.append(socket)
        return sessions.open(socket)

    async with listen(open_sink, close_seconds=closing_seconds) as port:
        try:
            yield Stage(log, gateway, sessions, sockets, clients, port)
        finally:
            for client in clients:
                await client.leave()
            await sessions.aclose()
            await gateway.aclose()
            await documents.aclose()
            slices.close()


@final
class Client:
    """One socket's client; it reads only when it is asked to."""

    def __init__(self, peer: Peer) -> None:
        self.peer = peer

    def send(self, message: Mapping[str, object]) -> None:
        self.peer.send_frame(TEXT, msgspec.json.encode(message))

    async def receive_bytes(self) -> bytes:
        frame = await self.peer.read_frame()
        assert frame.opcode == TEXT, frame
        return frame.payload

    async def receive(self) -> Message:
        return msgspec.json.decode(await self.receive_bytes(), type=Message)

    async def init(self, *, resume: bool = True) -> Message:
        asked = {"payload": {"resume": {"version": 1}}} if resume else {}
        self.send({"type": "connection_init", **asked})
        ack = await self.receive()
        assert ack["type"] == "connection_ack"
        return ack

    def subscribe(
        self,
        operation_id: str,
        query: str,
        variables: Mapping[str, object] | None = None,
        *,
        after: object = None,
        position: str | None = None,
    ) -> None:
        payload: dict[str, object] = {"query": query}
        if variables is not None:
            payload["variables"] = variables
        resume: dict[str, object] = {} if after is None else {"after": after}
        if position is not None:
            resume["position"] = [position]
        if resume:
            payload["extensions"] = {"resume": resume}
        self.send({"id": operation_id, "type": "subscribe", "payload": payload})

    async def live(self, operation_id: str) -> str:
        """Read the live signal of an operation; return its cursor."""
        message = await self.receive()
        assert message["type"] == "ping", message
        payload = msgspec.convert(message["payload"], dict[str, dict[str, str]])
        assert payload["resume"]["id"] == operation_id
        return payload["resume"]["cursor"]

    async def error_of(self, operation_id: str) -> dict[str, object]:
        """Read the error that ends an operation."""
        message = await self.receive()
        assert (message["id"], message["type"]) == (operation_id, "error"), message
        (error,) = msgspec.convert(message["payload"], list[dict[str, object]])
        return error

    async def next_of(self, operation_id: str) -> Payload:
        """Read an event of an operation."""
        return msgspec.convert(await self.result_of(operation_id), Payload)

    async def result_of(self, operation_id: str) -> object:
        """Read the payload of a ``next`` of an operation."""
        message = await self.receive()
        assert (message["id"], message["type"]) == (operation_id, "next"), message
        return message["payload"]

    async def close_code(self) -> int:
        """Read up to the close frame; return its code."""
        return (await self.closed())[0]

    async def closed(self) -> tuple[int, str]:
        """Read up to the close frame; return its code and reason."""
        while (frame := await self.peer.read_frame()).opcode != CLOSE:
            pass
        return frame.close_code, frame.payload[2:].decode()

    async def answers(self) -> None:
        """Prove that the socket lives: a ping is answered."""
        self.send({"type": "ping", "payload": {"n": 1}})
        assert await self.receive() == {"type": "pong", "payload": {"n": 1}}

    async def leave(self) -> None:
        await self.peer.close()
