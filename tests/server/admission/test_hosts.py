"""A server that asks nobody who he is answers only for names of this machine, and for given ones."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import Any

import pytest

from circuit_breaker_sdk.cli.exit_codes import ExitCode
from circuit_breaker_sdk.cli.runtime import Stop
from circuit_breaker_sdk.cli.serve import serve, settings_reader
from circuit_breaker_server import Server, ServerSettings
from circuit_breaker_server.admission.hosts import Hosts

UPGRADE = (
    "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)
BODY = '{"query":"{ health }"}'
POST = f"Content-Type: application/json\r\nContent-Length: {len(BODY)}\r\nConnection: close\r\n"
REQUESTS = {
    "GET /health": "GET /health HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n",
    "POST /graphql": f"POST /graphql HTTP/1.1\r\nHost: %s\r\n{POST}\r\n{BODY}",
    "poll": f"POST /graphql/poll HTTP/1.1\r\nHost: %s\r\n{POST}\r\n{BODY}",
    "upgrade": f"GET /graphql HTTP/1.1\r\nHost: %s\r\n{UPGRADE}\r\n",
}


async def status_of(server: Server, request: str) -> tuple[int, str]:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    try:
        writer.write(request.encode("latin-1"))
        async with asyncio.timeout(10):
            line = await reader.readline()
            rest = "" if b" 101 " in line else (await reader.read()).decode()
        return int(line.split()[1]), rest
    finally:
        writer.transport.abort()


@pytest.mark.parametrize(
    ("host", "passes"),
    [
        ("localhost", True),
        ("localhost:4000", True),
        ("LOCALHOST:1", True),
        ("127.0.0.1:80", True),
        ("[::1]:4000", True),
        ("app.test", True),
        ("app.test:4000", True),
        ("evil.example", False),
        ("localhost.evil.example", False),
        ("evil.example:localhost", False),
        ("localhost@evil.example", False),
        ("127.0.0.1.evil.example", False),
        ("127.0.0.2", False),
        ("2130706433", False),
        ("[::ffff:127.0.0.1]", False),
        ("[::1", False),
        ("localhost:4000:1", False),
        ("localhost:x", False),
        ("localhost,evil.example", False),
        ("local\u017fhost", False),
        ("", False),
    ],
)
def test_only_names_of_this_machine_and_those_given_are_answered(host: str, passes: bool) -> None:
    refusal = Hosts(["APP.test"]).refusal(host)
    assert (refusal is None) is passes
    assert passes or "--allowed-host" in str(refusal)


@pytest.mark.parametrize("request_of", REQUESTS)
async def test_an_open_server_on_loopback_refuses_the_host_of_another_site(
    tmp_path: Path, request_of: str
) -> None:
    async with Server(ServerSettings(data_dir=tmp_path, port=0, allowed_hosts=("app.test",))) as server:
        for host in ("localhost", f"127.0.0.1:{server.port}", "[::1]:1", "app.test"):
            assert (await status_of(server, REQUESTS[request_of] % host))[0] in (200, 101, 400)
        for host in ("evil.example", f"evil.example:{server.port}", ""):
            status, text = await status_of(server, REQUESTS[request_of] % host)
            assert (status, "allowed_hosts" in text) == (421, True)


@pytest.mark.parametrize(
    ("settings", "status"),
    [
        ({}, 421),
        ({"api_keys": True}, 200),
        ({"api_keys": True, "allowed_hosts": ("app.test",)}, 421),
        ({"host": "0.0.0.0", "insecure": True}, 200),  # noqa: S104 (it is the point)
        ({"host": "127.0.0.5"}, 421),
    ],
)
async def test_hosts_are_asked_for_where_being_on_this_machine_is_the_permission(
    tmp_path: Path, settings: dict[str, Any], status: int
) -> None:
    given = ServerSettings(data_dir=tmp_path, port=0, **settings)
    async with Server(given) as server:
        address = "127.0.0.1" if given.host == "0.0.0.0" else given.host  # noqa: S104
        for host, expected in (("evil.example", status), (address, 200)):
            reader, writer = await asyncio.open_connection(address, server.port)
            writer.write((REQUESTS["GET /health"] % host).encode())
            async with asyncio.timeout(10):
                assert int((await reader.readline()).split()[1]) == expected
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()


@pytest.mark.parametrize("wrong", ["", "http://app.test", "app.test/x", "a b", "*"])
async def test_serve_says_what_is_no_host(capsys: pytest.CaptureFixture[str], wrong: str) -> None:
    code = await serve(
        Stop(), settings_reader(None, (), {"--allowed-host": ("network.allowed_hosts", (wrong,))})
    )
    assert code == ExitCode.USAGE
    assert "is no host" in capsys.readouterr().err
