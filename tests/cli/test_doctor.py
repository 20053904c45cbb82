"""``doctor`` with a healthy server, and with each of the faults that it has to name."""

from __future__ import annotations

import contextlib
import datetime
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import websockets.asyncio.server as websockets
from aiohttp import web
from websockets.typing import Subprotocol

from circuit_breaker_sdk.cli.doctor.examination import doctor, examine
from circuit_breaker_sdk.cli.doctor.finding import Finding, State
from circuit_breaker_sdk.cli.doctor.patient import Patient
from circuit_breaker_sdk.cli.exit_codes import ExitCode
from circuit_breaker_sdk.cli.runtime import Stop
from circuit_breaker_sdk.testing import Direction, FaultProxy
from circuit_breaker_server import Server, ServerSettings, TokenSettings
from tests.cli.process import running
from tests.integration.strawberry_server import strawberry_server
from tests.ports import free_port
from tests.server.certificates import Authority
from tests.server.tokens import SECRET, token

STEPS = (
    "name",
    "port",
    "http",
    "clock",
    "server-sent events",
    "long polling",
    "websocket",
    "acknowledgement",
    "resume",
    "pings",
)


async def findings(
    url: str, *, token: str | None = None, seconds: float = 5.0, authority: Path | None = None
) -> dict[str, Finding]:
    patient = Patient.of(
        url, token=token, seconds=seconds, authority=None if authority is None else str(authority)
    )
    return {each.step: each async for each in examine(patient)}


def wrong(found: dict[str, Finding]) -> dict[str, str]:
    assert all(bool(each.advice) == (each.state is State.WRONG) for each in found.values())
    return {step: each.text for step, each in found.items() if each.state is State.WRONG}


@contextlib.asynccontextmanager
async def http_server(application: web.Application) -> AsyncIterator[str]:
    runner = web.AppRunner(application)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    assert site._server is not None
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/graphql"
    finally:
        await runner.cleanup()


async def test_all_is_well_with_a_server_of_ours(tmp_path: Path) -> None:
    async with Server(ServerSettings(port=0, data_dir=tmp_path)) as server:
        found = await findings(server.url)
    assert tuple(found) == STEPS
    assert {each.state for each in found.values()} == {State.OK}
    assert found["pings"].facts["answered"] == 1_000
    assert found["websocket"].facts["subprotocol"] == "graphql-transport-ws"


async def test_what_another_server_does_not_have_is_not_wrong() -> None:
    async with strawberry_server() as url:
        found = await findings(url)
    assert wrong(found) == {}
    assert found["resume"].state is State.NOT_OFFERED
    assert found["long polling"].state is State.NOT_OFFERED
    assert found["pings"].state is State.OK


async def test_a_server_without_graphql_over_http_is_well_where_its_websocket_is() -> None:
    async def answer(socket: websockets.ServerConnection) -> None:
        async for message in socket:
            kind = json.loads(message)["type"]
            await socket.send(
                json.dumps({"type": {"connection_init": "connection_ack", "ping": "pong"}[kind]})
            )

    speaks = [Subprotocol("graphql-transport-ws")]
    async with websockets.serve(answer, "127.0.0.1", 0, subprotocols=speaks) as server:
        port = server.sockets[0].getsockname()[1]
        found = await findings(f"ws://127.0.0.1:{port}/graphql")
    assert {step for step in STEPS if found[step].state is State.OK} >= {"websocket", "pings"}
    assert "http" in wrong(found) or found["http"].state is State.NOT_OFFERED


async def test_a_wrong_port_is_named() -> None:
    found = await findings(f"http://localhost:{free_port()}/graphql")
    (text,) = wrong(found).values()
    assert "connection refused" in text
    assert "is the port right" in found["port"].advice
    assert {each.state for step, each in found.items() if step not in ("name", "port")} == {State.NOT_TRIED}


async def test_a_name_that_is_not_known_is_named() -> None:
    found = await findings("http://name.invalid/graphql")
    assert list(wrong(found)) == ["name"]
    assert "'name.invalid' is not known" in found["name"].text


@pytest.mark.parametrize("until", [datetime.timedelta(hours=-1), datetime.timedelta(days=30)])
async def test_a_certificate_that_has_expired_is_named(tmp_path: Path, until: datetime.timedelta) -> None:
    authority = Authority()
    cert, key = authority.write(tmp_path, until=until)
    trusted = tmp_path / "authority.pem"
    trusted.write_bytes(authority.certificate)
    settings = ServerSettings(port=0, data_dir=tmp_path / "data", tls_cert=cert, tls_key=key)
    async with Server(settings) as server:
        found = await findings(server.url, authority=trusted)
        unknown = await findings(server.url)
    if until.days < 0:
        assert wrong(found) == {"tls": "the certificate has expired"}
    else:
        assert wrong(found) == {}
        assert "(30 days)" in found["tls"].text or "(29 days)" in found["tls"].text
        assert "the certificate is refused: " in wrong(unknown)["tls"]


async def test_tls_where_there_is_none_is_named(tmp_path: Path) -> None:
    async with Server(ServerSettings(port=0, data_dir=tmp_path)) as server:
        found = await findings(server.url.replace("http:", "https:"))
    assert list(wrong(found)) == ["tls"]
    assert "use ws:// or http://" in found["tls"].advice


async def test_a_wrong_path_is_named(tmp_path: Path) -> None:
    async with Server(ServerSettings(port=0, data_dir=tmp_path)) as server:
        found = await findings(server.url.replace("/graphql", "/grapql"))
    assert wrong(found)["http"] == "nothing at this path (HTTP 404): /grapql"
    assert "GraphQL is often at /graphql" in found["http"].advice
    assert "see the steps above" in found["websocket"].advice


async def test_a_page_that_is_no_graphql_is_named() -> None:
    async def page(_request: web.Request) -> web.Response:
        return web.Response(text="<html>", content_type="text/html")

    application = web.Application()
    application.router.add_route("*", "/graphql", page)
    async with http_server(application) as url:
        found = await findings(url)
    assert wrong(found)["http"] == "the answer is not GraphQL (HTTP 200, text/html)"


@pytest.mark.parametrize("closes", [False, True])
async def test_a_subprotocol_that_is_refused_is_named(closes: bool) -> None:
    async def close(socket: websockets.ServerConnection) -> None:
        await socket.recv()
        await socket.close(4406, "Subprotocol not acceptable")

    speaks = [Subprotocol("graphql-ws")] if closes else None
    async with websockets.serve(close, "127.0.0.1", 0, subprotocols=speaks) as server:
        port = server.sockets[0].getsockname()[1]
        found = await findings(f"ws://127.0.0.1:{port}/graphql")
    step = "acknowledgement" if closes else "websocket"
    assert ("subprotocol is refused" if closes else "no subprotocol was agreed on") in wrong(found)[step]
    assert "must speak graphql-transport-ws or graphql-ws" in found[step].advice


async def test_a_token_that_has_expired_is_named(tmp_path: Path) -> None:
    tokens = TokenSettings(key=SECRET)
    async with Server(ServerSettings(port=0, data_dir=tmp_path, token_keys=tokens)) as server:
        expired = await findings(server.url, token=token(sub="ada", exp=time.time() - 600))
        missing = await findings(server.url)
        good = await findings(server.url, token=token(sub="ada", exp=time.time() + 7_200))
    assert "the token expired 10 min ago" in wrong(expired)["token"]
    assert "the credentials are refused" in wrong(expired)["http"]
    assert "give a token: --token" in missing["http"].advice
    assert wrong(good) == {}
    assert good["token"].text == "the token is good for 2 h"


async def test_a_proxy_that_eats_websockets_is_named(tmp_path: Path) -> None:
    async with (
        Server(ServerSettings(port=0, data_dir=tmp_path)) as server,
        FaultProxy("127.0.0.1", server.port) as proxy,
    ):
        proxy.refuses_upgrades = True
        found = await findings(f"http://127.0.0.1:{proxy.port}/graphql")
    (text,) = wrong(found).values()
    assert "GraphQL answers over HTTP, and not over WebSockets" in text
    assert "a proxy between may not pass upgrades on" in found["websocket"].advice


async def test_a_half_open_connection_is_named(tmp_path: Path) -> None:
    async with (
        Server(ServerSettings(port=0, data_dir=tmp_path)) as server,
        FaultProxy("127.0.0.1", server.port) as proxy,
    ):
        proxy.stall(Direction.TO_CLIENT)
        found = await findings(f"http://127.0.0.1:{proxy.port}/graphql", seconds=0.3)
        proxy.flow()
    assert "connected, and no answer within 0.3 s" in wrong(found)["http"]
    assert "passes nothing on" in found["http"].advice
    assert "passes nothing on" in found["websocket"].advice


async def test_a_websocket_that_is_silent_behind_the_upgrade_is_named() -> None:
    async def hang(socket: websockets.ServerConnection) -> None:
        await socket.wait_closed()

    speaks = [Subprotocol("graphql-transport-ws")]
    async with websockets.serve(hang, "127.0.0.1", 0, subprotocols=speaks) as server:
        port = server.sockets[0].getsockname()[1]
        found = await findings(f"ws://127.0.0.1:{port}/graphql", seconds=0.3)
    assert "no answer to connection_init within 0.3 s" in wrong(found)["acknowledgement"]
    assert "passes nothing on" in found["acknowledgement"].advice


async def test_a_clock_that_is_ten_minutes_off_is_named() -> None:
    async def answer(_request: web.Request) -> web.Response:
        date = datetime.datetime.now(datetime.UTC) + datetime.timedelta(minutes=10)
        return web.json_response(
            {"data": {"__typename": "Query"}}, headers={"Date": date.strftime("%a, %d %b %Y %H:%M:%S GMT")}
        )

    application = web.Application()
    application.router.add_post("/graphql", answer)
    async with http_server(application) as url:
        found = await findings(url)
    assert wrong(found)["clock"] == "the server's clock is 10 min ahead of that of this machine"


async def test_the_status_is_1_where_something_is_wrong(capsys: pytest.CaptureFixture[str]) -> None:
    url = f"ws://localhost:{free_port()}/graphql?room=secret"
    status = await doctor(Stop(), url, token=None, seconds=1.0, authority=None, as_json=True)
    assert status == ExitCode.VERDICT
    out = capsys.readouterr().out
    said = json.loads(out)
    assert (said["ok"], said["steps"][1]["state"]) == (False, "wrong")
    assert "secret" not in out


@pytest.mark.parametrize("options", [{"url": "nonsense"}, {"authority": "/missing.pem"}])
async def test_wrong_usage_is_one_line(capsys: pytest.CaptureFixture[str], options: dict[str, str]) -> None:
    given = {"url": "https://localhost", "authority": None} | options
    url, authority = given["url"], given["authority"]
    assert url is not None
    status = await doctor(Stop(), url, token=None, seconds=1.0, authority=authority, as_json=False)
    assert status == ExitCode.USAGE
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ")


def test_a_terminal_shows_a_line_for_each_step(tmp_path: Path) -> None:
    with running("serve", "--port=0", f"--data={tmp_path}") as server:
        url = server.wait_for(r"ready: (https?://\S+/graphql)")
        with running("doctor", url) as command:
            assert command.end() == ExitCode.OK
    assert [line[13:33].strip() for line in command.out] == list(STEPS)
    assert {line.split()[0] for line in command.out} == {"ok"}
