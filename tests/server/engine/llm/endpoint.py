"""A real HTTP endpoint that speaks OpenAI's protocol, well or badly, as the model's name says."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from typing import final

import msgspec
from aiohttp import web

__all__ = ["FakeProvider", "serving_provider"]

_ODD = {
    "surrogate": [rb'{"choices":[{"index":0,"delta":{"content":"hi \ud800"}}]}'],
    "emoji": [
        rb'{"choices":[{"index":0,"delta":{"content":"%b"}}]}' % half for half in (rb"\ud83d", rb"\ude00!")
    ],
    "null": [b'{"choices":null}', b'{"choices":[{"index":0,"delta":null}]}'],
    "list": [b"[1]"],
}
"""Chunks that no provider should send, as they are on the wire."""


@final
class FakeProvider:
    """Answers ``POST /v1/chat/completions``.

    :ivar requests: the bodies that came, with the key they came with.
    """

    def __init__(self) -> None:
        self.requests: list[dict[str, object]] = []
        self.keys: list[str | None] = []
        self.headers: list[Mapping[str, str]] = []
        self.url = ""
        self.hold = asyncio.Event()

    async def answer(self, request: web.Request) -> web.StreamResponse:
        body = msgspec.json.decode(await request.read(), type=dict[str, object])
        self.requests.append(body)
        self.keys.append(request.headers.get("Authorization"))
        self.headers.append(request.headers)
        kind = str(body["model"]).partition("-")[2]
        if kind == "rubbish":
            return web.Response(text="<html>welcome</html>", content_type="text/html")
        if kind == "once":
            kind = "503" if len(self.requests) == 1 else "good"
        if kind.isdigit():
            headers = {"Retry-After": "7", "retry-after-ms": "1"}
            error = {"error": {"message": "no such model"}}
            return web.json_response(error, status=int(kind), headers=headers)
        return await self._stream(request, kind)

    async def _stream(self, request: web.Request, kind: str) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)

        async def say(**chunk: object) -> None:
            whole = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", **chunk}
            await response.write(b"data: " + msgspec.json.encode(whole) + b"\n\n")

        def choice(delta: object, finish: str | None = None) -> list[object]:
            return [{"index": 0, "delta": delta, "finish_reason": finish}]

        for word in ("Hello", ", ", "world"):
            await say(choices=choice({"content": word}))
        match kind:
            case "garbled":
                await response.write(b"data: {not json}\n\n")
                return response
            case "broken":
                assert request.transport is not None
                request.transport.abort()
                return response
            case "cut":
                await response.write_eof()
                return response
            case "hang":
                await self.hold.wait()
                return response
            case "held":
                await self.hold.wait()
            case "surrogate" | "emoji" | "null" | "list":
                for chunk in _ODD[kind]:
                    await response.write(b"data: %b\n\n" % chunk)
            case "number":
                await say(choices=choice({"content": 7}))
            case "call":
                call = {
                    "index": 0,
                    "id": "t",
                    "type": "function",
                    "function": {"name": "f", "arguments": "{}"},
                }
                await say(choices=choice({"tool_calls": [call]}))
        await say(choices=choice({}, "stop"))
        counted = {"half": 1.5, "text": "x", "negative": -5, "huge": 3_000_000_000}.get(kind, 11)
        if kind != "uncounted":
            usage = {"prompt_tokens": counted, "completion_tokens": 3, "total_tokens": 14}
            await say(choices=[], usage=usage)
        await response.write(b"data: [DONE]\n\n")
        return response


@contextlib.asynccontextmanager
async def serving_provider() -> AsyncIterator[FakeProvider]:
    """Serve on a free port of loopback."""
    provider = FakeProvider()
    app = web.Application()
    app.router.add_post("/v1/chat/completions", provider.answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    provider.url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
    try:
        yield provider
    finally:
        provider.hold.set()
        await runner.cleanup()
