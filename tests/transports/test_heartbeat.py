"""Pings at an interval, and a deadline that only the pong of a ping can meet; signs that cease."""

from __future__ import annotations

import asyncio
from itertools import pairwise

from circuit_breaker_sdk.transports.heartbeat import KeepAliveWatch, Pulse
from tests.waiting import until


async def test_it_pings_again_after_each_pong_and_measures_the_round_trip() -> None:
    pings: list[float] = []
    pulse: Pulse
    loop = asyncio.get_running_loop()

    def ping() -> None:
        pings.append(loop.time())
        loop.call_soon(pulse.pong)

    pulse = Pulse(0.01, 5.0, ping=ping, on_silence=pings.clear)
    pulse.start()
    await until(lambda: len(pings) >= 4)
    pulse.stop()
    assert pulse.round_trip_seconds is not None
    assert pulse.round_trip_seconds > 0, "not that of the clock of the loop, which stands still for a turn"
    assert all(later - earlier >= 0.009 for earlier, later in pairwise(pings))


async def test_a_ping_without_a_pong_is_silence_once_and_the_end_of_the_pings() -> None:
    pings: list[None] = []
    silences: list[None] = []
    pulse = Pulse(0.01, 0.01, ping=lambda: pings.append(None), on_silence=lambda: silences.append(None))
    pulse.start()
    await until(lambda: silences)
    assert (len(pings), len(silences)) == (1, 1)
    assert pulse._timer is None, "nothing more is due"


async def test_a_pong_that_no_ping_has_asked_for_means_nothing() -> None:
    silences: list[float] = []
    loop = asyncio.get_running_loop()
    pulse = Pulse(0.05, 0.01, ping=lambda: None, on_silence=lambda: silences.append(loop.time()))
    started = loop.time()
    pulse.start()
    for _ in range(3):
        pulse.pong()
    assert pulse.round_trip_seconds is None
    await until(lambda: silences)
    assert silences[0] - started >= 0.05


async def test_a_loop_that_was_busy_reads_what_has_arrived_before_it_judges() -> None:
    reader, writer = await asyncio.open_connection(sock=None, host="127.0.0.1", port=await _echo_port())
    silences: list[None] = []
    pulse: Pulse
    pulse = Pulse(0.001, 0.02, ping=lambda: writer.write(b"?"), on_silence=lambda: silences.append(None))
    pulse.start()
    assert await reader.readexactly(1) == b"?"
    # The answer lies in the socket's buffer, the deadline passes while nobody looks.
    _be_busy(0.05)
    pulse.pong()
    await asyncio.sleep(0)
    pulse.stop()
    assert not silences
    writer.close()
    await writer.wait_closed()
    _servers.pop().close()


_servers: list[asyncio.Server] = []


async def _echo_port() -> int:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(100):
            writer.write(data)
        writer.close()

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    _servers.append(server)
    port: int = server.sockets[0].getsockname()[1]
    return port


def _be_busy(seconds: float) -> None:
    loop = asyncio.get_running_loop()
    end = loop.time() + seconds
    while loop.time() < end:
        pass


async def test_a_peer_that_gives_no_sign_of_life_is_not_watched() -> None:
    silences: list[None] = []
    watch = KeepAliveWatch(0.0, on_silence=lambda: silences.append(None))
    watch.start()
    await asyncio.sleep(0.15)
    assert silences == []
    assert watch._timer is None
    assert (watch.round_trip_seconds, watch.unanswered_seconds) == (None, 0.0)


async def test_signs_that_cease_are_silence_after_three_of_the_longest_intervals() -> None:
    silences: list[float] = []
    loop = asyncio.get_running_loop()
    watch = KeepAliveWatch(0.0, on_silence=lambda: silences.append(loop.time()))
    watch.start()
    watch.pong()
    await asyncio.sleep(0.05)
    watch.pong()
    watch.pong()
    last = loop.time()
    await until(lambda: silences)
    assert silences[0] - last >= 0.15
    assert watch._timer is None, "nothing more is due"


async def test_the_least_silence_is_allowed_whatever_the_interval() -> None:
    silences: list[float] = []
    loop = asyncio.get_running_loop()
    watch = KeepAliveWatch(0.2, on_silence=lambda: silences.append(loop.time()))
    began = loop.time()
    watch.pong()
    await asyncio.sleep(0.01)
    watch.pong()
    await until(lambda: silences)
    assert silences[0] - began >= 0.2


async def test_behind_the_first_sign_there_are_two_minutes() -> None:
    watch = KeepAliveWatch(0.0, on_silence=lambda: None)
    watch.pong()
    assert watch._timer is not None
    assert watch._timer.when() - asyncio.get_running_loop().time() > 110
    watch.stop()


async def test_what_was_not_read_for_a_while_is_no_interval() -> None:
    silences: list[float] = []
    loop = asyncio.get_running_loop()
    watch = KeepAliveWatch(0.0, on_silence=lambda: silences.append(loop.time()))
    watch.pong()
    await asyncio.sleep(0.01)
    watch.pong()
    watch.stop()
    await asyncio.sleep(0.5)
    assert silences == []
    watch.start()
    watch.pong()
    began = loop.time()
    await until(lambda: silences)
    assert silences[0] - began < 1.0
