"""EventSource with our server: that of Chromium, in a page, and the npm package."""

from __future__ import annotations

import asyncio
import itertools
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import final
from urllib.parse import urlencode

import msgspec
from aiohttp import web

from circuit_breaker_server import Server, ServerSettings
from tests.system.interop.cells import NotPossible, Table, require, until
from tests.system.interop.our_server import UPDATES, World, world_of
from tests.system.interop.programs import HERE, Heard, Runtime, client

__all__ = ["run_event_sources"]

_CUTS = 2  # it waits for seconds before it connects again
_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--no-first-run",
)
_PAGE = """<!doctype html><title>interop</title><script type="module">
import { listen } from '/event_source.mjs';
let told = Promise.resolve(); // one after the other, so that they stay in order
const say = (message) => {
  told = told.then(() => fetch('/heard', { method: 'POST', body: JSON.stringify(message) }));
};
new URLSearchParams(location.search).getAll('url').forEach((url, number) => {
  listen(EventSource, url, String(number), say);
});
</script>"""


@final
class _Page:
    """A page on an origin of its own that posts what it hears.

    Example::

        async with page.shown("http://127.0.0.1:4000/graphql/stream?query=…") as heard:
            heard.payloads("0")
    """

    def __init__(self, origin: str, open_url: Callable[[str], AbstractAsyncContextManager[None]]) -> None:
        self.origin = origin
        self.heard = Heard()
        self._open_url = open_url

    async def take(self, request: web.Request) -> web.Response:
        self.heard.take(msgspec.json.decode(await request.read()))
        return web.Response()

    @asynccontextmanager
    async def shown(self, *urls: str) -> AsyncIterator[Heard]:
        self.heard = Heard()
        async with self._open_url(f"{self.origin}/?{urlencode({'url': urls}, doseq=True)}"):
            yield self.heard


@asynccontextmanager
async def _chromium(url: str) -> AsyncIterator[None]:
    """Show a page, without a window."""
    chromium = shutil.which("chromium")
    if chromium is None:
        raise NotPossible("no chromium")
    with tempfile.TemporaryDirectory(
        prefix="circuit-breaker-interop-", ignore_cleanup_errors=True
    ) as profile:
        process = await asyncio.create_subprocess_exec(
            chromium,
            *_FLAGS,
            f"--user-data-dir={profile}",
            # Without it a page without a window is over as soon as it is loaded.
            "--remote-debugging-port=0",
            url,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
        try:
            yield
        finally:
            process.terminate()
            await process.wait()


@asynccontextmanager
async def _page() -> AsyncIterator[_Page]:
    app = web.Application()
    runner = web.AppRunner(app)
    pages: list[_Page] = []

    async def show(_request: web.Request) -> web.Response:
        return web.Response(text=_PAGE, content_type="text/html")

    async def script(_request: web.Request) -> web.Response:
        return web.Response(text=(HERE / "event_source.mjs").read_text(), content_type="text/javascript")

    async def take(request: web.Request) -> web.Response:
        return await pages[0].take(request)

    app.router.add_get("/", show)
    app.router.add_get("/event_source.mjs", script)
    app.router.add_post("/heard", take)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        page = _Page(f"http://127.0.0.1:{runner.addresses[0][1]}", _chromium)
        pages.append(page)
        yield page
    finally:
        await runner.cleanup()


def _in_node(*urls: str) -> AbstractAsyncContextManager[Heard]:
    return client(Runtime.NODE, "event_source_client.mjs", *urls)


_Open = Callable[..., AbstractAsyncContextManager[Heard]]


def _url(world: World, query: str) -> str:
    variables = msgspec.json.encode(world.variables).decode()
    return f"{world.url}/graphql/stream?{urlencode({'query': query, 'variables': variables})}"


async def _cuts(world: World, opened: _Open) -> None:
    """Cut while numbers are published; none may be missing."""
    async with opened(_url(world, UPDATES)) as heard, world.publisher.publishing():
        for cuts in range(_CUTS + 1):
            await until(lambda: heard.opened > cuts, f"it does not connect after {cuts} cuts")  # noqa: B023 (awaited here)
            count = len(heard.payloads("0"))
            await until(lambda: len(heard.payloads("0")) >= count + 20, f"no events after {cuts} cuts")  # noqa: B023 (as above)
            if cuts < _CUTS:
                world.proxy.cut()
        numbers = heard.numbers("0")
    require(all(b == a + 1 for a, b in itertools.pairwise(numbers)), f"not all, in order: {numbers}")
    require(heard.opened == _CUTS + 1, f"it has connected {heard.opened} times")


async def _unknown_field(world: World, opened: _Open) -> None:
    bad = _url(world, "subscription($w: String!) { resourceUpdates(workflowId: $w) { nothing } }")
    async with opened(bad, _url(world, UPDATES)) as heard, world.publisher.publishing():
        await until(lambda: heard.end("0"), "it does not end")
        (told,) = heard.payloads("0")
        require("nothing" in str(told["errors"]), f"told was {told}")
        await until(lambda: len(heard.payloads("1")) >= 3, "the neighbour gets no events")


async def run_event_sources(table: Table, _runtimes: Collection[Runtime]) -> None:
    """Run the scenarios in a page and in Node."""
    async with _page() as page:
        with tempfile.TemporaryDirectory(prefix="circuit-breaker-interop-") as directory:
            settings = ServerSettings(
                port=0, data_dir=Path(directory), ping_seconds=0.2, allowed_origins=(page.origin,)
            )
            async with Server(settings) as server, world_of(server.port) as world:
                clients: Sequence[tuple[str, _Open]] = (
                    ("EventSource in Chromium", page.shown),
                    ("EventSource of npm", _in_node),
                )
                for name, opened in clients:
                    await table.run(name, "ours", "an unknown field", _unknown_field(world, opened))
                    await table.run(name, "ours", "cuts, and nothing is missed", _cuts(world, opened))
