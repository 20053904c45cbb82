"""How many connections a principal may have, and how often an address may connect."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import aiohttp
import pytest

from circuit_breaker_server.config import RateSettings
from circuit_breaker_server.endpoints import principal_connections
from circuit_breaker_server.endpoints.principal_connections import TOO_MANY
from tests.server.access.office import Office, open_office


async def connected(
    office: Office, http: aiohttp.ClientSession, who: str
) -> tuple[aiohttp.ClientWebSocketResponse, dict[str, Any] | None]:
    """Connect; return the socket, and the acknowledgement if there was one."""
    socket = await http.ws_connect(office.server.url, protocols=["graphql-transport-ws"])
    payload = {"Authorization": f"Bearer {office.token_of(who)}"}
    await socket.send_json({"type": "connection_init", "payload": payload})
    first = await socket.receive()
    return socket, first.json() if first.type is aiohttp.WSMsgType.TEXT else None


async def test_a_principal_has_its_share_and_as_many_again_to_replace_them(tmp_path: Path) -> None:
    async with open_office(tmp_path, {"max_connections_per_principal": 2}) as office:
        open_ones = [await connected(office, office.http, "boss") for _ in range(4)]
        assert [said for _, said in open_ones] == [{"type": "connection_ack"}] * 4
        refused, said = await connected(office, office.http, "boss")
        assert said is None
        assert refused.close_code == 1013
        _, said = await connected(office, office.http, "another")
        assert said is not None
        await open_ones[0][0].close()
        _, said = await connected(office, office.http, "boss")
        assert said is not None


async def test_those_that_replace_none_are_closed_after_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(principal_connections, "ROTATION_SECONDS", 0.01)
    async with open_office(tmp_path, {"max_connections_per_principal": 1}) as office:
        first, _ = await connected(office, office.http, "boss")
        second, _ = await connected(office, office.http, "boss")
        closed = await second.receive()
        assert (closed.data, closed.extra) == (1013, TOO_MANY)
        await first.send_json({"type": "ping"})
        assert (await first.receive()).json() == {"type": "pong"}


async def test_who_connects_too_often_is_told_when_to_come_again(tmp_path: Path) -> None:
    async with open_office(tmp_path, {"rates": RateSettings(connects_per_second=2)}) as office:
        for _ in range(2):
            await connected(office, office.http, "boss")
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await connected(office, office.http, "boss")
        assert refused.value.status == 429
        assert refused.value.headers is not None
        assert refused.value.headers["Retry-After"] == "1"


async def test_a_principal_that_is_disabled_loses_its_live_streams(tmp_path: Path) -> None:
    async with open_office(tmp_path, ann=("acme", ["workflow:read:*"])) as office:
        socket, said = await connected(office, office.http, "ann")
        assert said is not None
        office.policy.write_text("[principals.ann]\ndisabled = true\n")
        closed = await socket.receive()
        assert (closed.data, closed.extra) == (4403, "access revoked")
        again, said = await connected(office, office.http, "ann")
        assert said is None
        assert again.close_code == 4403
