"""What is wrong with one subscription ends that one: its neighbours on the connection go on."""

from __future__ import annotations

import asyncio

import pytest

from circuit_breaker_sdk import Client, Subscription
from circuit_breaker_sdk.errors import DecodeError, SubscriptionError, SubscriptionFailed
from tests.connections.raw_server import Script, acknowledge, read_message, send_message, send_next, stay
from tests.transports.peers import PATIENCE_SECONDS, TEXT, Peer, serve

GOOD, BAD = "subscription Good { tick }", "subscription Bad { tick }"


async def first_two(client: Client) -> tuple[Subscription[int], Subscription[int]]:
    return (
        await client.subscribe(GOOD, type=int),
        await client.subscribe(BAD, type=int),
    )


async def end_of(subscription: Subscription[int]) -> SubscriptionError:
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            async for _ in subscription:
                pass
    except SubscriptionError as error:
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
    message: bytes, error: type[SubscriptionError], text: str
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
