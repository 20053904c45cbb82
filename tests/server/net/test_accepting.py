"""Connections are accepted a few at a time, by who has room for them."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import socket
from collections.abc import AsyncIterator
from typing import cast, final

import pytest

from circuit_breaker_server import logs
from circuit_breaker_server.admission.connection_limits import Peers
from circuit_breaker_server.net.acceptor import Acceptor
from tests.waiting import until


@pytest.fixture(autouse=True)
def quiet_logs(default_log_level: None) -> None:
    logs.configure("critical")


@final
class Place:
    """A listener, and what speaks on its connections."""

    def __init__(self, peers: Peers) -> None:
        self.peers = peers
        self.transports: list[asyncio.Transport] = []
        self.writers: list[asyncio.StreamWriter] = []
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=2048)
        self.listener.setblocking(False)
        self.acceptor = Acceptor(peers, self.speak)

    def speak(self) -> asyncio.Protocol:
        place = self

        class Speaker(asyncio.Protocol):
            def connection_made(self, transport: asyncio.BaseTransport) -> None:
                assert place.peers.enter("127.0.0.1") is None
                place.transports.append(cast(asyncio.Transport, transport))

            def connection_lost(self, _exc: Exception | None) -> None:
                place.peers.leave("127.0.0.1")

        return Speaker()

    async def connect(self) -> asyncio.StreamReader:
        reader, writer = await asyncio.open_connection(*self.listener.getsockname())
        self.writers.append(writer)
        return reader


@contextlib.asynccontextmanager
async def opened(*, max_per_address: int) -> AsyncIterator[Place]:
    place = Place(Peers(max_per_address=max_per_address))
    place.acceptor.start(place.listener)
    try:
        yield place
    finally:
        await place.acceptor.aclose()
        for writer in place.writers:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
        await until(lambda: not len(place.peers))
        place.listener.close()


async def test_who_has_room_speaks_and_who_is_one_too_many_is_told() -> None:
    async with opened(max_per_address=2) as place:
        for _ in range(2):
            await place.connect()
        await until(lambda: len(place.transports) == 2)
        said = await (await place.connect()).read()
        assert said.startswith(b"HTTP/1.1 429 Too Many Requests\r\n")
        assert b"Retry-After" in said
        place.writers[0].close()
        await until(lambda: len(place.peers) == 1)
        await place.connect()
        await until(lambda: len(place.transports) == 3)


async def test_of_a_flood_all_are_answered_and_others_have_their_turn() -> None:
    async with opened(max_per_address=1) as place:
        await place.connect()
        await until(lambda: len(place.transports) == 1)
        # All of them wait before the first one is accepted: the kernel shakes hands by itself.
        flood = [socket.create_connection(place.listener.getsockname()) for _ in range(300)]
        others = 0

        async def others_turn() -> None:
            nonlocal others
            while True:
                await asyncio.sleep(0)
                others += 1

        counting = asyncio.create_task(others_turn())
        for each in flood:
            each.setblocking(False)
            said = await asyncio.get_running_loop().sock_recv(each, 100)
            assert said.startswith(b"HTTP/1.1 429")
            each.close()
        counting.cancel()
        assert len(place.transports) == 1
        assert others >= 300 / 16


async def test_while_there_are_no_files_for_sockets_who_comes_waits() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    async with opened(max_per_address=100) as place:
        with socket.socket() as late:
            with socket.socket() as lowest_free:
                limit = lowest_free.fileno()
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
            try:
                late.setblocking(False)
                with contextlib.suppress(BlockingIOError):
                    late.connect(place.listener.getsockname())
                await asyncio.sleep(0.1)  # that nobody is accepted meanwhile is no event
                assert not place.transports
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            await until(lambda: len(place.transports) == 1)


async def test_after_the_end_nobody_is_accepted_and_who_speaks_stays() -> None:
    async with opened(max_per_address=100) as place:
        reader = await place.connect()
        await until(lambda: len(place.transports) == 1)
        await place.acceptor.aclose()
        await place.acceptor.aclose()
        await place.connect()
        place.transports[0].write(b"still here")
        assert await reader.readexactly(10) == b"still here"
        assert len(place.transports) == 1
