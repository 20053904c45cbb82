"""A peer that sends without end costs itself: others have their turn, and nothing of it is lost."""

import time

import pytest

from circuit_breaker_sdk.transports.frame_pacing import Pacing
from circuit_breaker_sdk.transports.websocket import MessageSink, WebSocket
from tests.transports.peers import CLOSE, PING, PONG, TEXT, Peer, RecordingSink, listen, open_pair, raw_client
from tests.waiting import until

FREE = Pacing(frames_per_second=None, at_once=1)


class Room:
    """The sockets of one server; all that arrives is recorded in one list, with who sent it."""

    def __init__(self) -> None:
        self.sinks: list[RecordingSink] = []
        self.sockets: list[WebSocket] = []
        self.peers: list[Peer] = []
        self.arrived: list[tuple[int, bytes]] = []

    def open_sink(self, socket: WebSocket) -> MessageSink:
        sink, number, record = RecordingSink(), len(self.sinks), self.arrived.append
        received = sink.on_message

        def on_message(data: bytes) -> None:
            record((number, data))
            received(data)

        sink.on_message = on_message  # type: ignore[method-assign]
        self.sinks.append(sink)
        self.sockets.append(socket)
        return sink

    async def enter(self, port: int) -> Peer:
        peer = await raw_client(port)
        self.peers.append(peer)
        assert "101" in await peer.read_head()
        return peer

    async def leave(self) -> None:
        for socket in self.sockets:
            socket.abort()
            await socket.wait_closed()
        for peer in self.peers:
            await peer.close()


@pytest.mark.parametrize("role", ["client", "server"])
async def test_of_the_pings_of_one_turn_the_last_one_is_answered(role: str) -> None:
    async with open_pair(role) as pair:
        pair.peer.send(b"".join(pair.peer.frame(PING, b"%d" % n) for n in range(100)))
        answers: list[bytes] = []
        while not answers or answers[-1] != b"99":
            pong = await pair.peer.read_frame()
            assert pong.opcode == PONG
            answers.append(pong.payload)
        assert len(answers) < 100
        assert answers == sorted(answers, key=int)


async def test_no_pong_follows_a_close_frame() -> None:
    async with open_pair("server") as pair:
        pair.peer.send(pair.peer.frame(PING, b"late") + pair.peer.frame(CLOSE, (1000).to_bytes(2)))
        assert (await pair.peer.read_frame()).close_code == 1000
        assert await pair.peer.read_to_end() == b""


async def test_another_peer_has_its_turn_before_all_of_a_flood_is_taken() -> None:
    room = Room()
    async with listen(room.open_sink, pacing=FREE) as port:
        loud, quiet = await room.enter(port), await room.enter(port)
        loud.send(b"".join(loud.frame(TEXT, b"%d" % n) for n in range(10_000)))
        await loud.writer.drain()
        quiet.send_frame(TEXT, b"hello")
        await room.sinks[0].wait_until(lambda: len(room.sinks[0].messages) == 10_000)
        await room.sinks[1].wait_until(lambda: room.sinks[1].messages)
        assert room.sinks[0].messages == [b"%d" % n for n in range(10_000)]
        assert room.arrived.index((1, b"hello")) < 9_000
        await room.leave()


async def test_a_peer_that_is_ahead_is_read_no_faster_than_its_pace_and_loses_nothing() -> None:
    room = Room()
    async with listen(room.open_sink, pacing=Pacing(frames_per_second=2_000, at_once=200)) as port:
        peer = await room.enter(port)
        began = time.monotonic()
        peer.send(b"".join(peer.frame(TEXT, b"%d" % n) for n in range(2_000)))
        await room.sinks[0].wait_until(lambda: len(room.sinks[0].messages) == 2_000)
        assert room.sinks[0].messages == [b"%d" % n for n in range(2_000)]
        # Some hundreds that are read at once may be ahead; the others take more than half a second.
        assert time.monotonic() - began >= 0.3
        await room.leave()


async def test_a_quiet_peer_may_send_so_many_at_once() -> None:
    room = Room()
    async with listen(room.open_sink, pacing=Pacing(frames_per_second=1, at_once=500)) as port:
        peer = await room.enter(port)
        peer.send(b"".join(peer.frame(TEXT, b"%d" % n) for n in range(500)))
        await room.sinks[0].wait_until(lambda: len(room.sinks[0].messages) == 500)
        await room.leave()


async def test_who_is_ahead_is_held_back_until_it_has_waited() -> None:
    room = Room()
    async with listen(room.open_sink, pacing=Pacing(frames_per_second=1_000, at_once=100)) as port:
        peer = await room.enter(port)
        peer.send(b"".join(peer.frame(TEXT, b"x") for _ in range(500)))
        await room.sinks[0].wait_until(lambda: room.sockets[0].holds_back)
        await room.sinks[0].wait_until(lambda: len(room.sinks[0].messages) == 500)
        await until(lambda: not room.sockets[0].holds_back)
        await room.leave()


async def test_who_was_told_to_wait_is_not_read_meanwhile_however_often_it_was_told() -> None:
    room = Room()
    async with listen(room.open_sink, pacing=Pacing(frames_per_second=100_000, at_once=1_000)) as port:
        peer = await room.enter(port)
        for _ in range(10):
            room.sockets[0].hold_back(0.2)
        assert room.sockets[0].holds_back
        began = time.monotonic()
        peer.send_frame(TEXT, b"again")
        await room.sinks[0].wait_until(lambda: room.sinks[0].messages)
        assert 0.15 <= time.monotonic() - began < 1.5
        await room.leave()


async def test_who_was_told_to_wait_can_be_closed_meanwhile() -> None:
    room = Room()
    async with listen(room.open_sink, pacing=Pacing(frames_per_second=100, at_once=10)) as port:
        peer = await room.enter(port)
        room.sockets[0].hold_back(3_600)
        room.sockets[0].close(4400, "enough")
        assert (await peer.read_frame()).close_code == 4400
        peer.send_frame(CLOSE, (4400).to_bytes(2))
        assert await room.sinks[0].close_code() == 4400
        await room.leave()


async def test_the_answer_to_a_close_is_read_behind_all_that_was_sent_before() -> None:
    room = Room()
    pacing = Pacing(frames_per_second=100, at_once=64)
    async with listen(room.open_sink, pacing=pacing, close_seconds=30) as port:
        peer = await room.enter(port)
        peer.send(b"".join(peer.frame(TEXT, b"x") for _ in range(5_000)))
        await room.sinks[0].wait_until(lambda: room.sinks[0].messages)
        room.sockets[0].close(4400, "enough")
        close = await peer.read_frame()
        assert close.close_code == 4400
        peer.send_frame(CLOSE, close.payload)
        # At its pace that would take 50 s, and end without an answer.
        assert await room.sinks[0].close_code() == 4400
        assert await peer.read_to_end() == b""
        await room.leave()


async def test_who_is_slowed_can_be_closed_and_can_go() -> None:
    room = Room()
    async with listen(
        room.open_sink, pacing=Pacing(frames_per_second=1, at_once=1), close_seconds=0.2
    ) as port:
        closed, gone = await room.enter(port), await room.enter(port)
        for peer in (closed, gone):
            peer.send(b"".join(peer.frame(TEXT, b"x") for _ in range(1_000)))
        await room.sinks[0].wait_until(lambda: room.sinks[0].messages)
        await room.sinks[1].wait_until(lambda: room.sinks[1].messages)
        room.sockets[0].close(4400, "enough")
        room.sockets[1].abort()
        assert await room.sinks[0].close_code() == 4400
        assert await room.sinks[1].close_code() == 1006
        await room.leave()
