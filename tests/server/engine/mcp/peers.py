"""The other sides, all real: MCP servers good and bad, and an OAuth provider's token endpoint."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import final

import msgspec
from aiohttp import web

REAL_SERVER = Path(__file__).with_name("real_server.py")


@contextlib.contextmanager
def real_server(*tools: str, port: int = 0) -> Iterator[int]:
    """Run an MCP server made with the official package; yield its port."""
    process = subprocess.Popen(
        [sys.executable, str(REAL_SERVER), str(port), *tools],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert process.stdout is not None
        yield int(process.stdout.readline())
    finally:
        process.terminate()
        process.communicate(timeout=20)


@contextlib.asynccontextmanager
async def _serving(app: web.Application, tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    runner = web.AppRunner(app, shutdown_timeout=0.1, access_log=None, handler_cancellation=True)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls).start()
    try:
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


@final
class FakeMcp:
    """Speaks enough of the protocol at ``/mcp``, and misbehaves elsewhere, as the path says.

    :ivar headers: of each request at ``/mcp``.
    :ivar methods: what was asked for, anywhere.
    :ivar tools: what it lists.
    :ivar asked: something was asked for.
    :ivar hold: opens what hangs.
    :ivar failures: how many of the next requests are answered with HTTP status 503.
    """

    def __init__(self) -> None:
        self.headers: list[dict[str, str]] = []
        self.methods: list[str] = []
        self.tools: list[object] = [{"name": "add", "inputSchema": {"type": "object"}}]
        self.asked = asyncio.Event()
        self.hold = asyncio.Event()
        self.failures = 0
        self.base = ""

    @property
    def url(self) -> str:
        return f"{self.base}/mcp"

    async def answer(self, request: web.Request) -> web.StreamResponse:
        kind = request.match_info["kind"]
        if request.method != "POST":
            return web.Response(status=405)
        body = msgspec.json.decode(await request.read(), type=dict[str, object])
        method = str(body["method"])
        self.methods.append(method)
        self.asked.set()
        if kind == "hang":
            await self.hold.wait()
        if kind == "abort":
            assert request.transport is not None
            request.transport.abort()
        if kind == "moved":
            raise web.HTTPTemporaryRedirect("http://elsewhere.example/mcp")
        bad = {
            "html": web.Response(text="<html>welcome</html>", content_type="text/html"),
            "rubbish": web.Response(text="{", content_type="application/json"),
            "unauthorized": web.Response(status=401),
            "liar": self._result(body, {"protocolVersion": "1999-01-01"}),
            "abort": web.Response(),
        }
        if kind in bad:
            return bad[kind]
        if kind == "deaf" and method == "ping":
            return web.Response(status=500)
        self.headers.append({name.lower(): value for name, value in request.headers.items()})
        if self.failures:
            self.failures -= 1
            return web.Response(status=503)
        return self._speak(method, body, kind)

    def _speak(self, method: str, body: dict[str, object], kind: str) -> web.Response:
        match method:
            case "initialize":
                result: dict[str, object] = {
                    "protocolVersion": "2025-06-18",
                    "capabilities": {"tools": {}},
                    "serverInfo": {"name": "fake", "version": "1"},
                }
            case "ping":
                result = {}
            case "tools/list":
                more = {"nextCursor": "again"} if kind == "endless" else {}
                result = {"tools": self.tools, **more}
            case _:
                return web.Response(status=202)
        return self._result(body, result)

    @staticmethod
    def _result(body: dict[str, object], result: object) -> web.Response:
        return web.json_response({"jsonrpc": "2.0", "id": body.get("id"), "result": result})


@contextlib.asynccontextmanager
async def fake_mcp(tls: ssl.SSLContext | None = None) -> AsyncIterator[FakeMcp]:
    """Serve on a free port of loopback."""
    fake = FakeMcp()
    app = web.Application()
    app.router.add_route("*", "/{kind}", fake.answer)
    async with _serving(app, tls) as port:
        fake.base = f"http{'' if tls is None else 's'}://127.0.0.1:{port}"
        try:
            yield fake
        finally:
            fake.hold.set()


@final
class FakeProvider:
    """An OAuth provider's token endpoint.

    :ivar forms: what was posted.
    :ivar answers: the next answers, the last one again and again; a number is a HTTP status, a text is HTML.
    """

    def __init__(self) -> None:
        self.forms: list[dict[str, str]] = []
        self.answers: list[object] = [{"access_token": "at-1", "expires_in": 3600, "refresh_token": "rt-1"}]
        self.url = ""

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.forms.append({name: str(value) for name, value in (await request.post()).items()})
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        match answer:
            case int():
                return web.json_response({"error": "invalid_grant"}, status=answer)
            case str():
                return web.Response(text=answer, content_type="text/html")
            case _:
                return web.json_response(answer)


@contextlib.asynccontextmanager
async def token_endpoint() -> AsyncIterator[FakeProvider]:
    """Serve on a free port of loopback."""
    provider = FakeProvider()
    app = web.Application()
    app.router.add_post("/token", provider.answer)
    async with _serving(app) as port:
        provider.url = f"http://127.0.0.1:{port}/token"
        yield provider
