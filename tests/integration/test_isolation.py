"""What is wrong with one subscription ends that one: its neighbours on the connection go on."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from typing import Any

import pytest

from circuit_breaker_sdk import (
    Client,
    ConnectionState,
    ErrorRecoveryPolicy,
    Subscription,
    SubscriptionConnectionPool,
)
from circuit_breaker_sdk.errors import (
    DecodeError,
    ProtocolError,
    SubscriptionError,
    SubscriptionFailed,
    TransportError,
)
from circuit_breaker_sdk.recovery import suspect_subscriptions
from tests.connections.raw_server import Script, acknowledge, read_message, send_message, send_next, stay
from tests.transports.peers import CLOSE, PATIENCE_SECONDS, TEXT, Peer, serve
from tests.waiting import until

GOOD, BAD = "subscription Good { tick }", "subscription Bad { tick }"


async def first_two(client: Client) -> tuple[Subscription[int], Subscription[int]]:
    return (
        await client.subscribe(GOOD, type=int),
        await client.subscribe(BAD, type=int),
    )


async def end_of(subscription: Subscription[int]) -> TransportError | SubscriptionError:
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            async for _ in subscription:
                pass
    except (TransportError, SubscriptionError) as error:
        return error
    raise AssertionError("it has ended without an error")


def answering(message: bytes) -> Script:
    """Answer the second subscription with a message, in which ID stands for its id, then the first."""

    async def script(peer: Peer) -> None:
        await acknowledge(peer)
        good, bad = [str((await read_message(peer))["id"]) for _ in range(2)]
        send_next(peer, good, 1)
        peer.send_frame(TEXT, message.replace(b"ID", bad.encode()))
        send_next(peer, good, 2)
        await stay(peer)

    return script


@pytest.mark.parametrize(
    ("message", "error", "text"),
    [
        (rb'{"id":"ID","type":"error","payload":{"message":"denied"}}', SubscriptionFailed, "denied"),
        (
            rb'{"id":"ID","type":"error","payload":{"errors":[{"message":"denied"}]}}',
            SubscriptionFailed,
            "denied",
        ),
        (rb'{"id":"ID","type":"next","payload":{"data":{"tick":"\ud83d"}}}', DecodeError, "surrogate"),
        (rb'{"id":"ID","type":"next","payload":{"data":{"tick":NaN}}}', DecodeError, "NaN"),
        (rb'{"id":"ID","type":"next","payload":[1]}', DecodeError, "object"),
        (rb'{"id":"ID","type":"next"}', DecodeError, "object"),
    ],
)
async def test_a_payload_that_cannot_be_read_ends_its_subscription_only(
    message: bytes, error: type[TransportError | SubscriptionError], text: str
) -> None:
    async with serve(answering(message)) as port, Client(f"ws://127.0.0.1:{port}/graphql") as client:
        good, bad = await first_two(client)
        ended = await end_of(bad)
        assert type(ended) is error
        assert text in str(ended)
        async with asyncio.timeout(PATIENCE_SECONDS):
            assert [await anext(good), await anext(good)] == [1, 2]


async def test_an_error_in_mid_stream_that_ends_by_complete_is_raised_after_the_events() -> None:
    async def script(peer: Peer) -> None:
        await acknowledge(peer)
        id_ = str((await read_message(peer))["id"])
        send_next(peer, id_, 1)
        send_message(
            peer, id=id_, type="next", payload={"data": None, "errors": [{"message": "the source is gone"}]}
        )
        send_message(peer, id=id_, type="complete")
        await stay(peer)

    async with serve(script) as port, Client(f"ws://127.0.0.1:{port}/graphql") as client:
        subscription = await client.subscribe(GOOD, type=int)
        assert await anext(subscription) == 1
        with pytest.raises(SubscriptionFailed, match="the source is gone"):
            await anext(subscription)


# A server that closes the connection at a bad document -----------------------------------------------------


class ClosingServer:
    """Sends numbers to good subscriptions as it is told, and closes with ``code`` at a bad one."""

    def __init__(self, code: int, *, resume: bool = False) -> None:
        self.code = code
        self.is_resuming = resume
        self.connections = 0
        self.live: dict[str, Peer] = {}
        self._sent = 0
        self._changed = asyncio.Event()

    async def __call__(self, peer: Peer) -> None:
        self.connections += 1
        self._changed.set()
        await acknowledge(peer, {"resume": {"version": 1, "epoch": "e"}} if self.is_resuming else None)
        mine: list[str] = []
        try:
            with suppress(asyncio.IncompleteReadError, ConnectionError):
                while (received := await peer.read_frame()).opcode != CLOSE:
                    message = json.loads(received.payload)
                    if message["type"] == "subscribe" and "Bad" in message["payload"]["query"]:
                        self._forget(mine)
                        peer.send_frame(CLOSE, self.code.to_bytes(2) + b"Syntax Error: expected Name")
                    elif message["type"] == "subscribe":
                        self._begin(peer, message)
                        mine.append(message["id"])
                    elif message["type"] == "complete":
                        self.live.pop(message["id"], None)
                peer.send_frame(CLOSE, received.payload)
        finally:
            self._forget(mine)

    def _forget(self, ids: list[str]) -> None:
        for id_ in ids:
            self.live.pop(id_, None)
        self._changed.set()

    def _begin(self, peer: Peer, message: dict[str, Any]) -> None:
        id_ = message["id"]
        if self.is_resuming:
            after = message["payload"].get("extensions", {}).get("resume", {}).get("after", str(self._sent))
            send_message(peer, type="ping", payload={"resume": {"id": id_, "cursor": after}})
            for number in range(int(after), self._sent):
                self._send(peer, id_, number + 1)
        self.live[id_] = peer
        self._changed.set()

    def _send(self, peer: Peer, id_: str, number: int) -> None:
        payload: dict[str, object] = {"data": {"tick": number}}
        if self.is_resuming:
            payload["extensions"] = {"resume": {"cursor": str(number), "prev": str(number - 1)}}
        send_message(peer, id=id_, type="next", payload=payload)

    def publish(self) -> None:
        self._sent += 1
        for id_, peer in self.live.items():
            self._send(peer, id_, self._sent)

    async def changed(self) -> None:
        self._changed.clear()
        await self._changed.wait()

    async def until_live(self, count: int) -> None:
        async with asyncio.timeout(PATIENCE_SECONDS):
            while len(self.live) != count:
                self._changed.clear()
                await self._changed.wait()


@pytest.fixture(params=["single", "pool"])
def pool(request: pytest.FixtureRequest) -> SubscriptionConnectionPool | None:
    return SubscriptionConnectionPool(size=2) if request.param == "pool" else None


CODES = [4500, 4400, 1011, 1002]


@pytest.mark.parametrize("code", CODES)
@pytest.mark.parametrize("resume", [False, True])
async def test_a_document_at_which_the_server_closes_fails_and_its_neighbour_goes_on(
    code: int, resume: bool, pool: SubscriptionConnectionPool | None
) -> None:
    server = ClosingServer(code, resume=resume)
    async with serve(server) as port, Client(f"ws://127.0.0.1:{port}/graphql", pool=pool) as client:
        good = await client.subscribe(GOOD, type=int)
        await server.until_live(1)
        server.publish()
        assert await anext(good) == 1
        failed = await refused(client)
        assert failed.reason == "Syntax Error: expected Name"
        assert failed.close_code == code
        await server.until_live(1)
        server.publish()
        async with asyncio.timeout(PATIENCE_SECONDS):
            assert await anext(good) == 2
        assert good.state == "live"
        assert server.connections <= 1 + 3


async def refused(client: Client) -> SubscriptionFailed:
    """Subscribe with a bad document; return why it fails, whether that is known at once or later."""
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            bad = await client.subscribe(BAD, type=int)
    except SubscriptionFailed as error:
        return error
    ended = await end_of(bad)
    assert isinstance(ended, SubscriptionFailed), ended
    return ended


@pytest.mark.parametrize("code", CODES)
async def test_an_innocent_suspect_is_cleared_on_a_connection_of_its_own(code: int) -> None:
    server = ClosingServer(code)
    async with serve(server) as port, Client(f"ws://127.0.0.1:{port}/graphql") as client:
        good = await client.subscribe(GOOD, type=int)
        await server.until_live(1)
        await refused(client)
        await server.until_live(1)
        server.publish()
        async with asyncio.timeout(PATIENCE_SECONDS):
            assert await anext(good) == 1
        assert good.state == "live"
        await until(lambda: client.state is ConnectionState.CONNECTED)
        again = await client.subscribe(GOOD, type=int)
        await server.until_live(2)
        server.publish()
        async with asyncio.timeout(PATIENCE_SECONDS):
            assert [await anext(good), await anext(again)] == [2, 2]
        assert server.connections == 3, "the connection on which it was cleared serves the others"


@pytest.mark.parametrize("resume", [False, True])
async def test_many_suspects_are_tried_one_at_a_time_and_each_bad_one_fails(
    resume: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The peer's close must arrive within it, also on a machine that is busy: without cursors there is no
    # other proof than time.
    monkeypatch.setattr(suspect_subscriptions, "PROOF_SECONDS", 0.5)
    server = ClosingServer(4500, resume=resume)
    policy = ErrorRecoveryPolicy(base_delay=0.01, max_delay=0.01)
    async with serve(server) as port, Client(f"ws://127.0.0.1:{port}/graphql", recovery=policy) as client:
        documents = [GOOD, BAD, GOOD, BAD, GOOD, GOOD]
        found = await asyncio.gather(
            *(client.subscribe(document, type=int) for document in documents), return_exceptions=True
        )
        good = [each for each, document in zip(found, documents, strict=True) if document is GOOD]
        bad = [each for each, document in zip(found, documents, strict=True) if document is BAD]
        for each in bad:
            ended = await end_of(each) if isinstance(each, Subscription) else each
            assert isinstance(ended, SubscriptionFailed)
        async with asyncio.timeout(PATIENCE_SECONDS):
            # In between, the last one is off the connection of its own and not yet on that of the others.
            while len(server.live) != 4 or len(set(map(id, server.live.values()))) != 1:
                await server.changed()
        server.publish()
        for each in good:
            assert isinstance(each, Subscription)
            async with asyncio.timeout(PATIENCE_SECONDS):
                assert await anext(each) == 1


@pytest.mark.parametrize("code", CODES)
async def test_a_close_with_no_suspect_is_retried_or_final_by_its_code(code: int) -> None:
    server = ClosingServer(code)
    async with serve(server) as port, Client(f"ws://127.0.0.1:{port}/graphql") as client:
        good = await client.subscribe(GOOD, type=int)
        await server.until_live(1)
        server.publish()
        assert await anext(good) == 1
        (peer,) = server.live.values()
        server.live.clear()
        peer.send_frame(CLOSE, code.to_bytes(2) + b"gone")
        if code in {4400, 1002}:
            assert isinstance(await end_of(good), ProtocolError)
            return
        await server.until_live(1)
        server.publish()
        async with asyncio.timeout(PATIENCE_SECONDS):
            assert await anext(good) == 2


async def test_a_suspect_that_is_unsubscribed_is_not_sent_again() -> None:
    server = ClosingServer(4500)
    async with serve(server) as port, Client(f"ws://127.0.0.1:{port}/graphql") as client:
        good = await client.subscribe(GOOD, type=int)
        await server.until_live(1)
        server.publish()
        assert await anext(good) == 1
        bad = await client.subscribe(BAD, type=int)
        ends: list[asyncio.Task[None]] = []
        bad.on_error(lambda _error: ends.append(asyncio.create_task(bad.unsubscribe())))
        await until(lambda: bool(ends))
        await asyncio.gather(*ends)
        assert bad.state == "unsubscribed"
        await server.until_live(1)
        server.publish()
        async with asyncio.timeout(PATIENCE_SECONDS):
            assert await anext(good) == 2


async def test_closing_the_client_leaves_nothing_of_a_trial() -> None:
    server = ClosingServer(4500)
    async with serve(server) as port:
        async with Client(f"ws://127.0.0.1:{port}/graphql") as client:
            good = await client.subscribe(GOOD, type=int)
            await server.until_live(1)
            await refused(client)
            await server.until_live(1)
        assert good.state == "unsubscribed"
