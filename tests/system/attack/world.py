"""What the attacks are made on: a server with everything on, people with rights, and raw sockets."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import signal
import ssl
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final, Self, final

import aiohttp
from joserfc import jws
from joserfc.jwk import OctKey

from benchmarks.loop_holds import Holds, histogram_in
from benchmarks.machine import LOAD_CORE, MEASURED_CORE, on_core, resident_bytes
from benchmarks.processes import Commands, Remote, answer_commands, running
from circuit_breaker_sdk import Client
from circuit_breaker_sdk.cli.runtime import settle_memory
from circuit_breaker_server import OAuthProviderSettings, Server, ServerSettings, TokenSettings
from circuit_breaker_server.engine.workflows.inputs import CreateResource, ExecuteActivity
from tests.policy_file import policy_of
from tests.ports import free_port

__all__ = [
    "ALLOWED_PEER",
    "ATTACKER",
    "ISSUERS",
    "LIMITS",
    "SECRET",
    "Peer",
    "World",
    "opened",
    "token",
]

SECRET: Final = b"known to the issuer and the server only"
AUDIENCE: Final = "circuit-breaker"
ATTACKER: Final = "127.0.0.66"
"""Where attacks come from; victims are at 127.0.0.1."""

ALLOWED_PEER: Final = "127.0.0.77"
"""Where servers of the attacker listen that the attacked server may connect to; nothing else inside is."""

ISSUERS: Final = ("first", "second")
"""The OAuth providers that the operator has configured; an attack listens at their token endpoints."""

LIMITS: Final[Mapping[str, float]] = {"head_seconds": 3.0, "body_seconds": 3.0}
"""Settings that are not the defaults, so that a run does not wait for long deadlines."""

_AT_ONCE: Final = 500


def token(sub: str, *, secret: bytes = SECRET, seconds: float = 3600, **claims: object) -> str:
    """Sign a token that is good for so long."""
    said = {"sub": sub, "exp": time.time() + seconds, "aud": AUDIENCE, **claims}
    key = OctKey.import_key(secret)
    return jws.serialize_compact({"alg": "HS256"}, json.dumps(said).encode(), key, algorithms=["HS256"])


def serve(pipe: Connection, data_dir: str, policy: str, settings: dict[str, Any]) -> None:
    """Serve until the pipe is closed, and tell how long the loop was held (``holds``)."""
    selector = Holds(histogram_in())

    async def answer() -> None:
        async with _commands(Path(data_dir), Path(policy), settings) as commands:
            pipe.send(("answer", None))

            async def holds() -> tuple[float, float]:
                return selector.take()

            await answer_commands(pipe, {**commands, "holds": holds})

    with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(selector)) as runner:
        runner.run(answer())


@contextlib.asynccontextmanager
async def _commands(data_dir: Path, policy: Path, settings: dict[str, Any]) -> AsyncIterator[Commands]:
    given = ServerSettings(
        data_dir=data_dir,
        port=0,
        log_level="error",
        token_keys=TokenSettings(key=SECRET, audience=AUDIENCE),
        api_keys=True,
        policy_file=policy,
        allowed_outbound=(ALLOWED_PEER,),
        **settings,
    )
    async with Server(given) as server:
        settle_memory()

        async def port() -> int:
            return server.port

        async def weigh() -> int:
            return resident_bytes()

        async def set_variable(name: str, value: str) -> None:
            os.environ[name] = value

        async def fill(workflow: str, count: int, data_bytes: int, moves: int) -> None:
            """Make resources beside the API, many in one commit; let each of them move so often."""
            workflows = server.engine.workflows
            given = CreateResource(workflow_id=workflow, data={"text": "x" * data_bytes}, metadata={})
            ids: list[str] = []
            for begin in range(0, count, _AT_ONCE):
                some = range(min(_AT_ONCE, count - begin))
                made = await asyncio.gather(*(workflows.create_resource(given) for _ in some))
                ids += [str(each.value["id"]) for each in made]
            for _ in range(moves):
                again = (ExecuteActivity(resource_id=id_, activity_id="stay", data={}) for id_ in ids)
                await asyncio.gather(*(workflows.execute_activity(each) for each in again))

        yield {"port": port, "weigh": weigh, "set_variable": set_variable, "fill": fill}


@final
class World:
    """A server in a process of its own, its policy, and who asks it.

    :ivar data_dir: the server's.
    """

    def __init__(
        self,
        directory: Path,
        server: Remote,
        people: dict[str, tuple[str, list[str]]],
        issuer_ports: tuple[int, int],
    ) -> None:
        self.data_dir = directory / "data"
        self._policy = directory / "policy.toml"
        self._server = server
        self.people = people
        self.issuer_ports = issuer_ports
        self.crowds: dict[str, str] = {}
        self.port: int = server.call("port")
        self.url = f"http://127.0.0.1:{self.port}/graphql"

    def weigh(self) -> int:
        """Return the server's memory in bytes."""
        return int(self._server.call("weigh"))

    def set_variable(self, name: str, value: str) -> None:
        """Set a variable of the server's environment, as its operator would before the start."""
        self._server.call("set_variable", name=name, value=value)

    def fill(self, workflow: str, *, count: int, data_bytes: int, moves: int) -> None:
        """Have the server make resources, quickly."""
        self._server.call("fill", workflow=workflow, count=count, data_bytes=data_bytes, moves=moves)

    def kill(self) -> None:
        """Kill the server without a chance to write anything more."""
        os.kill(self._server.pid, signal.SIGKILL)

    def holds(self) -> tuple[float, float]:
        """Return how long the event loop was held since this was last asked: 99th percentile, and longest."""
        p99, longest = self._server.call("holds")
        return float(p99), float(longest)

    def allow(self, **people: tuple[str, list[str]]) -> float:
        """Change the policy; return when it was written."""
        self.people |= people
        new = self._policy.with_suffix(".new")
        new.write_text(policy_of(self.people))
        os.replace(new, self._policy)
        return time.monotonic()

    def client(self, who: str) -> Client:
        """Make a client of the SDK."""
        return Client(self.url, token=lambda: token(who))

    @contextlib.asynccontextmanager
    async def http(self, address: str = ATTACKER) -> AsyncIterator[aiohttp.ClientSession]:
        """Open a session of plain HTTP from an address."""
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(local_addr=(address, 0))) as session:
            yield session

    async def ask(
        self, http: aiohttp.ClientSession, who: str, query: str, **variables: object
    ) -> dict[str, Any]:
        """Post an operation; return the answer."""
        body = {"query": query, "variables": variables}
        headers = {"Authorization": f"Bearer {token(who)}"}
        async with http.post(self.url, json=body, headers=headers) as answer:
            found: dict[str, Any] = await answer.json(content_type=None)
            return found


def _issuer(id_: str, port: int) -> OAuthProviderSettings:
    url = f"http://{ALLOWED_PEER}:{port}"
    return OAuthProviderSettings(
        id=id_, name=id_, authorization_endpoint=f"{url}/authorize", token_endpoint=f"{url}/v1/token"
    )


@contextlib.contextmanager
def opened(directory: Path, people: dict[str, tuple[str, list[str]]], **settings: Any) -> Iterator[World]:
    """Run a server with this policy."""
    policy = directory / "policy.toml"
    policy.write_text(policy_of(people))
    ports = free_port(ALLOWED_PEER), free_port(ALLOWED_PEER)
    issuers = tuple(_issuer(id_, port) for id_, port in zip(ISSUERS, ports, strict=True))
    arguments = (str(directory / "data"), str(policy), {**LIMITS, "oauth_providers": issuers, **settings})
    with on_core(LOAD_CORE), running(serve, *arguments, core=MEASURED_CORE) as server:
        server.receive()
        yield World(directory, server, people, ports)
        server.stop()


@final
class Peer:
    """A WebSocket without manners: it writes whatever bytes it is given.

    Example::

        async with Peer.open(world) as peer:
            await peer.text({"type": "connection_init"})
            print(await peer.read())
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.answer = b""

    @classmethod
    @contextlib.asynccontextmanager
    async def open(
        cls, world: World, *, headers: Mapping[str, str] | None = None, query: str = ""
    ) -> AsyncIterator[Self]:
        """Connect and shake hands; :attr:`answer` is the head of what the server said."""
        peer = cls(*await cls.connect(world))
        try:
            await peer.upgrade(headers or {}, query)
            yield peer
        finally:
            peer.writer.close()
            with contextlib.suppress(OSError, ssl.SSLError):
                await peer.writer.wait_closed()

    @staticmethod
    async def connect(world: World) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Connect from the attacker's address, and say nothing."""
        return await asyncio.open_connection("127.0.0.1", world.port, local_addr=(ATTACKER, 0))

    async def upgrade(self, headers: Mapping[str, str], query: str = "") -> None:
        """Ask for a WebSocket."""
        given = {
            "Host": "127.0.0.1",
            "Upgrade": "websocket",
            "Connection": "Upgrade",
            "Sec-WebSocket-Key": base64.b64encode(os.urandom(16)).decode(),
            "Sec-WebSocket-Version": "13",
            "Sec-WebSocket-Protocol": "graphql-transport-ws",
            **headers,
        }
        head = "".join(f"{name}: {value}\r\n" for name, value in given.items())
        self.writer.write(f"GET /graphql{query} HTTP/1.1\r\n{head}\r\n".encode())
        with contextlib.suppress(asyncio.IncompleteReadError):
            self.answer = await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), 10)

    @property
    def status(self) -> int:
        """The status of the handshake's answer; 0 for none."""
        return int(self.answer.split(b" ", 2)[1]) if self.answer else 0

    @staticmethod
    def framed(payload: bytes, *, first: int = 0x81) -> bytes:
        """Build one masked frame."""
        size = len(payload)
        if size < 126:
            head = bytes((first, 0x80 | size))
        elif size < 65536:
            head = bytes((first, 0x80 | 126)) + size.to_bytes(2, "big")
        else:
            head = bytes((first, 0x80 | 127)) + size.to_bytes(8, "big")
        return head + b"\0\0\0\0" + payload

    def frame(self, payload: bytes, *, first: int = 0x81) -> None:
        """Write one masked frame."""
        self.writer.write(self.framed(payload, first=first))

    def text(self, message: object) -> None:
        """Write a message."""
        self.frame(json.dumps(message).encode())

    async def let_in(self, who: str) -> None:
        """Begin as a principal.

        :raises RuntimeError: it is refused.
        """
        payload = {"Authorization": f"Bearer {token(who)}", "resume": {"version": 1}}
        self.text({"type": "connection_init", "payload": payload})
        first = await self.read()
        if first.get("type") != "connection_ack":
            raise RuntimeError(f"not let in: {first}")

    async def read(self) -> dict[str, Any]:
        """Read one message; ``{"close": code, "reason": …}`` for the end, code 1006 if none was said.

        A WebSocket pong is ``{"type": "WebSocket pong"}``.
        """
        while True:
            try:
                async with asyncio.timeout(15):
                    first, data = await self._frame()
            except TimeoutError:
                raise
            except (asyncio.IncompleteReadError, OSError):
                return {"close": 1006, "reason": ""}
            if first & 0x0F == 8:
                return {"close": int.from_bytes(data[:2], "big"), "reason": data[2:].decode()}
            if first & 0x0F == 10:
                return {"type": "WebSocket pong"}
            if first & 0x0F == 1:
                message: dict[str, Any] = json.loads(data)
                return message

    async def _frame(self) -> tuple[int, bytes]:
        first, second = await self.reader.readexactly(2)
        size = second & 0x7F
        if size == 126:
            size = int.from_bytes(await self.reader.readexactly(2), "big")
        elif size == 127:
            size = int.from_bytes(await self.reader.readexactly(8), "big")
        return first, await self.reader.readexactly(size)

    async def read_until(self, *kinds: str) -> dict[str, Any]:
        """Read on to a message of such a type, or the end."""
        while True:
            message = await self.read()
            if "close" in message or message.get("type") in kinds:
                return message
