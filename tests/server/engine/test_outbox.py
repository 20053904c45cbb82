"""Pieces on their way into the log: a time limit around a put or a flush loses none of them."""

from __future__ import annotations

import asyncio

import pytest

from circuit_breaker_server.engine.batching_writer import Outbox


async def test_a_flush_that_is_given_up_leaves_the_write_that_it_waited_for() -> None:
    allowed, written = asyncio.Event(), list[int]()

    async def write(pieces: list[int]) -> None:
        await allowed.wait()
        written.extend(pieces)

    outbox = Outbox(write, weigh=lambda _: 1)
    await outbox.put(1)
    flushing = asyncio.create_task(outbox.flush())
    await asyncio.sleep(0)
    flushing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await flushing
    await outbox.put(2)
    allowed.set()
    await outbox.flush()
    await outbox.aclose()
    assert written == [1, 2]
