"""Queries and mutations when the client is closed: nothing is sent behind it, and the truth is told."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine

import pytest

from circuit_breaker_sdk.config import OfflineQueue
from circuit_breaker_sdk.connections import Credentials
from circuit_breaker_sdk.domains.execution import Executor
from circuit_breaker_sdk.errors import ConnectionFailed, OperationTimeoutError, UsageError
from tests.connections.raw_server import settings
from tests.transports.peers import Peer, serve

MUTATION = "mutation Move { move }"


def executor(port: int, queue: OfflineQueue | None = None, **credentials: object) -> Executor:
    return Executor(
        settings(port, credentials=Credentials(**credentials)),  # type: ignore[arg-type]  # by their names
        f"http://127.0.0.1:{port}/graphql",
        offline_queue=queue,
    )


@pytest.mark.parametrize("queue", [None, OfflineQueue()])
async def test_a_mutation_that_waits_for_a_token_is_not_sent_after_the_close(
    queue: OfflineQueue | None,
) -> None:
    connected: list[Peer] = []
    asked, go = asyncio.Event(), asyncio.Event()

    async def token() -> str:
        asked.set()
        await go.wait()
        return "t0ken"

    async def script(peer: Peer) -> None:
        connected.append(peer)

    async with serve(script) as port:
        under_test = executor(port, queue, token=token)
        calling = asyncio.create_task(under_test.execute(MUTATION, type=dict[str, str]))
        await asked.wait()
        await under_test.aclose()
        go.set()
        with pytest.raises(UsageError, match="closed"):
            await calling
    assert not connected


async def under_way(
    queue: OfflineQueue | None, end: Callable[[Executor], Coroutine[None, None, None]]
) -> BaseException | None:
    """Return what a mutation raises whose request has arrived when ``end`` is called."""
    arrived = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.read_head()
        arrived.set()
        await peer.read_to_end()

    async with serve(script) as port:
        under_test = executor(port, queue)
        calling = asyncio.create_task(
            under_test.execute(MUTATION, type=dict[str, str], operation_name="Move")
        )
        await arrived.wait()
        await end(under_test)
        await asyncio.wait((calling,))
        await under_test.aclose()
        return calling.exception()


@pytest.mark.parametrize("queue", [None, OfflineQueue()])
async def test_of_a_mutation_under_way_the_outcome_is_said_to_be_unknown(queue: OfflineQueue | None) -> None:
    error = await under_way(queue, Executor.aclose)
    assert isinstance(error, ConnectionFailed)
    assert not error.not_sent
    assert "executed is not known" in str(error)


async def test_one_that_waits_in_the_queue_ends_and_was_not_sent() -> None:
    arrived = asyncio.Event()

    async def script(peer: Peer) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError):  # the close may come first
            await peer.read_head()
        peer.vanish()
        arrived.set()

    async with serve(script) as port:
        under_test = executor(port, OfflineQueue())
        first = asyncio.create_task(under_test.execute(MUTATION, type=dict[str, str]))
        await arrived.wait()
        while not under_test.waiting_mutations:  # noqa: ASYNC110 (it has no observer)
            await asyncio.sleep(0)
        second = asyncio.create_task(under_test.execute(MUTATION, type=dict[str, str]))
        while under_test.waiting_mutations < 2:  # noqa: ASYNC110 (it has no observer)
            await asyncio.sleep(0)
        await under_test.aclose()
        await asyncio.wait((first, second))
        assert isinstance(first.exception(), ConnectionFailed), "it may have happened"
        assert isinstance(second.exception(), UsageError), "it was never sent"


async def test_the_deadline_of_the_queue_is_a_timeout_of_the_operation_from_the_first_attempt_on() -> None:
    async def wait_for_the_deadline(_executor: Executor) -> None:
        return

    error = await under_way(OfflineQueue(deadline_seconds=0.05), wait_for_the_deadline)
    assert isinstance(error, OperationTimeoutError)
    assert "whole or not at all" in str(error)


async def test_a_cancellation_in_the_turn_of_the_close_is_a_cancellation() -> None:
    arrived = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.read_head()
        arrived.set()
        await peer.read_to_end()

    for turns in range(4):
        arrived.clear()
        async with serve(script) as port:
            under_test = executor(port, OfflineQueue())
            calling = asyncio.create_task(under_test.execute(MUTATION, type=dict[str, str]))
            await arrived.wait()
            closing = asyncio.create_task(under_test.aclose())
            for _ in range(turns):
                await asyncio.sleep(0)
            was_cancelled = calling.cancel()
            await asyncio.wait((calling, closing))
            assert calling.cancelled() is was_cancelled
