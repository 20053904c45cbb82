"""A subscription is begun once the server has come to what its client has seen at another one."""

from __future__ import annotations

import asyncio

import pytest

from circuit_breaker_server.endpoints import positions as module
from circuit_breaker_server.endpoints.positions import BEHIND, Positions
from circuit_breaker_server.engine.cursor import Cursors
from circuit_breaker_server.gateway.gateway import Gateway
from tests.server.gateway.worlds import ALL_THINGS, ScriptedLog, derive, select
from tests.server.stage import staged


class BehindLog(ScriptedLog):
    """A log whose tail is behind, until it is told to catch up."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = asyncio.Event()
        self.caught_up = asyncio.Event()

    async def reaches(self, offset: int) -> bool:
        self.asked.set()
        await self.caught_up.wait()
        return await super().reaches(offset)


def ahead(log: ScriptedLog) -> str:
    return Cursors(log.epoch).text(log.last_offset + 1, 0, "00000001")


def positions(log: ScriptedLog) -> Positions:
    return Positions(log, Gateway(log, derive=derive, select=select), Cursors(log.epoch))


async def test_it_waits_for_the_tail_and_others_behind_it_wait_too() -> None:
    log = BehindLog()
    async with staged(log=log, positions=positions(log)) as stage:
        client = await stage.open()
        client.subscribe("1", ALL_THINGS, position=ahead(log))
        client.subscribe("2", ALL_THINGS)
        async with asyncio.timeout(5):
            await log.asked.wait()
        assert stage.gateway.channels == 0
        log.caught_up.set()
        await client.live("1")
        await client.live("2")


async def test_a_server_that_stays_behind_closes_so_that_the_client_comes_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "_PATIENCE_SECONDS", 0.01)
    log = BehindLog()
    async with staged(log=log, positions=positions(log)) as stage:
        client = await stage.open()
        client.subscribe("1", ALL_THINGS, position=ahead(log))
        assert await client.closed() == (1013, BEHIND)


async def test_only_so_many_requests_of_a_principal_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MAX_WAITING", 2)
    log = BehindLog()
    found = positions(log)
    waiting = [asyncio.create_task(found.reach([ahead(log)], "ada")) for _ in range(2)]
    async with asyncio.timeout(5):
        await log.asked.wait()
    await asyncio.sleep(0)
    assert not await found.reach([ahead(log)], "ada")
    log.caught_up.set()
    assert await found.reach([ahead(log)], "bob")
    assert await asyncio.gather(*waiting) == [True, True]
    assert found._waiting == {}
