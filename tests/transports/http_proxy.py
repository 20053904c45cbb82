"""An HTTP proxy that records what it is asked, and refuses, hangs or talks rubbish when a test says so."""

from __future__ import annotations

import asyncio
import base64
import re
from contextlib import suppress
from typing import Final, Self, final

_LENGTH: Final = re.compile(r"content-length: *(\d+)", re.IGNORECASE)


@final
class HttpProxy:
    """Tunnels ``CONNECT``, and sends plain requests on, one on each connection.

    :ivar heads: of all requests, as they came.
    :ivar answer: sent in place of its own answer; empty: it hangs up. ``None``: it does its work.
    :ivar hangs: it reads a request and says nothing.
    :ivar hung_up: the client of a request that hung has gone.
    :ivar hosts: what names mean, to this proxy alone.
    """

    def __init__(self, credentials: str | None = None) -> None:
        self.heads: list[str] = []
        self.answer: bytes | None = None
        self.hangs = False
        self.hung_up = False
        self.hosts: dict[str, str] = {}
        self._authorization = (
            None if credentials is None else "Basic " + base64.b64encode(credentials.encode()).decode()
        )
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    @property
    def port(self) -> int:
        assert self._server is not None
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    @property
    def place(self) -> str:
        return f"127.0.0.1:{self.port}"

    def url(self, credentials: str | None = None) -> str:
        return f"http://{credentials}@{self.place}" if credentials else f"http://{self.place}"

    @property
    def requests(self) -> list[str]:
        """The first lines of all requests."""
        return [head.partition("\r\n")[0] for head in self.heads]

    async def cut(self) -> None:
        """Drop every open connection."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        await self.cut()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with suppress(ConnectionError, asyncio.IncompleteReadError):
                await self._handle(reader, writer)
        finally:
            writer.transport.abort()

    async def _handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        self.heads.append(head)
        if self.hangs:
            await reader.read()
            self.hung_up = True
            return
        if self.answer is not None:
            writer.write(self.answer)
            await writer.drain()
            await _end(reader, writer)
            return
        if self._authorization is not None and f"proxy-authorization: {self._authorization}".lower() not in (
            head.lower()
        ):
            writer.write(
                b"HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic\r\n"
                b"Content-Length: 0\r\nConnection: close\r\n\r\n"
            )
            await _end(reader, writer)
            return
        method, target, _ = head.partition("\r\n")[0].split(" ")
        if method == "CONNECT":
            await self._tunnel(target, reader, writer)
        else:
            await self._send_on(target, head, reader, writer)

    async def _join(self, authority: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        host, _, port = authority.rpartition(":")
        return await asyncio.open_connection(self.hosts.get(host, host.strip("[]")), int(port))

    async def _tunnel(
        self, authority: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        to_server = await self._join(authority)
        try:
            writer.write(b"HTTP/1.1 200 Connection established\r\nVia: 1.1 a-proxy\r\n\r\n")
            async with asyncio.TaskGroup() as both:
                both.create_task(_pump(reader, to_server[1]))
                both.create_task(_pump(to_server[0], writer))
        finally:
            to_server[1].transport.abort()

    async def _send_on(
        self, url: str, head: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        authority, slash, path = url.removeprefix("http://").partition("/")
        length = _LENGTH.search(head)
        body = await reader.readexactly(int(length[1])) if length else b""
        lines = head.split("\r\n")[1:-2]
        kept = [line for line in lines if not line.lower().startswith(("connection:", "proxy-"))]
        start = f"{head.split(' ', 1)[0]} {slash}{path} HTTP/1.1"
        from_server, to_server = await self._join(authority)
        try:
            to_server.write("\r\n".join((start, *kept, "Connection: close", "", "")).encode("latin-1") + body)
            await _pump(from_server, writer)
            await _end(reader, writer)
        finally:
            to_server.transport.abort()


async def _pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):
        while data := await source.read(65_536):
            sink.write(data)
            await sink.drain()
        if sink.can_write_eof():
            sink.write_eof()


async def _end(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """End our direction, and read on until the peer has ended its own: a reset could destroy the answer."""
    writer.write_eof()
    with suppress(ConnectionError):
        while await reader.read(65_536):
            pass
