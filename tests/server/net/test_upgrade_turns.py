"""Hundreds of clients that come at once: each turn of the event loop upgrades as many as it has time for."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from circuit_breaker_server import Server, ServerSettings
from circuit_breaker_server.net.request_limits import RequestMeter
from circuit_breaker_server.scheduling import Gate
from tests.server.loop_rounds import LoopRounds
from tests.transports.peers import PATIENCE_SECONDS, upgrade_request

CLIENTS = 100
UPGRADE_SECONDS = 0.000_3
"""So long takes each upgrade."""


async def test_clients_that_come_at_once_are_upgraded_a_few_in_each_turn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, looked_at = LoopRounds(), RequestMeter.head_complete

    def head_complete(meter: RequestMeter) -> None:
        clock.work(UPGRADE_SECONDS)
        looked_at(meter)

    monkeypatch.setattr(RequestMeter, "head_complete", head_complete)
    assert Gate.__init__.__kwdefaults__ is not None
    monkeypatch.setitem(Gate.__init__.__kwdefaults__, "clock", clock.read)
    async with Server(ServerSettings(port=0, data_dir=tmp_path)) as server:
        peers = [await asyncio.open_connection("127.0.0.1", server.port) for _ in range(CLIENTS)]
        for _, writer in peers:
            writer.write(upgrade_request())
        async with asyncio.timeout(PATIENCE_SECONDS):
            answers = [await reader.readline() for reader, _ in peers]
        clock.stop()
        for _, writer in peers:
            writer.transport.abort()
            await asyncio.wait_for(writer.wait_closed(), PATIENCE_SECONDS)
    assert answers == [b"HTTP/1.1 101 Switching Protocols\r\n"] * CLIENTS
    assert sum(clock.rounds) >= (CLIENTS - 8) * UPGRADE_SECONDS
    assert max(clock.rounds) <= 0.001 + UPGRADE_SECONDS
