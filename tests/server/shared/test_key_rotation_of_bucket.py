"""The cluster key is replaced while servers run: no entry is lost, and the old key opens nothing any more."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from circuit_breaker_sdk import Client, Continuity
from circuit_breaker_server.settings.cluster import ClusterSettings
from circuit_breaker_server.shared.bucket import Bucket
from circuit_breaker_server.shared.entries import BucketError
from circuit_breaker_server.storage.cluster_key import ClusterKey
from tests.conformance.nats_server import NatsServer
from tests.integration.workflows import create_review_workflow, number_of
from tests.server.site import site
from tests.waiting import until

OLD, NEW = b"o" * 32, b"n" * 32


@contextlib.asynccontextmanager
async def bucket_with(broker: NatsServer, *keys: bytes) -> AsyncIterator[Bucket]:
    bucket = await Bucket.open(ClusterSettings(urls=(broker.url,)), ClusterKey(keys[0], keys[1:]))
    try:
        yield bucket
    finally:
        await bucket.aclose()


async def test_all_entries_are_encrypted_anew_while_servers_read_and_write_them(broker: NatsServer) -> None:
    async with bucket_with(broker, OLD) as before:
        for n in range(20):
            await before.put("secret", f"s-{n}", b"%d" % n)
        await before.put("secret", "gone", b"x")
        await before.remove("secret", "gone")
    wanted = {f"s-{n}": b"%d" % n for n in range(20)}
    async with bucket_with(broker, OLD, NEW) as running, bucket_with(broker, NEW, OLD) as first:
        # One that has not got the new order yet goes on to write with the old key.
        writes = [asyncio.create_task(running.put("secret", f"s-{n}", b"%d" % n)) for n in range(0, 20, 5)]
        assert await first.reseal() >= 17
        await asyncio.gather(*writes)
        await first.reseal()
        assert await first.reseal() == 0
        await until(lambda: running.items("secret") == wanted)
        assert first.items("secret") == wanted
    async with bucket_with(broker, NEW) as after:
        assert after.items("secret") == wanted
        assert after.get("secret", "gone") is None
    with pytest.raises(BucketError, match="encrypted under another key"):
        async with bucket_with(broker, OLD):
            pass


async def test_a_subscriber_goes_on_across_the_new_key(tmp_path: Path, broker: NatsServer) -> None:
    file = tmp_path / "cluster.key"
    file.touch(0o600)
    cluster = ClusterSettings(urls=(broker.url,), key_file=file)

    async def seen(after: str | None, *, creates: int) -> tuple[list[object], str]:
        async with site(tmp_path / "data", cluster=cluster) as place, Client(place.server.url) as client:
            if after is None:
                workflows.append((await create_review_workflow(client)).id)
            builder = client.workflows.subscribe_resource_updates(workflow_id=workflows[0])
            updates = await (builder if after is None else builder.after(after)).subscribe()
            await client.workflows.create_resource(workflow_id=workflows[0], data={"n": creates})
            found = [number_of(await anext(updates))]
            while found[-1] != creates:
                found.append(number_of(await anext(updates)))
            assert updates.continuity is Continuity.OK
            assert updates.cursor is not None
            return found, updates.cursor

    workflows: list[str] = []
    cursor: str | None = None
    for number, lines in enumerate([(OLD,), (OLD, NEW), (NEW, OLD), (NEW, OLD)]):
        file.write_text("".join(f"{line.hex()}\n" for line in lines))
        found, cursor = await seen(cursor, creates=number)
        # The cursor is behind what was handled: the event that was read last comes again.
        assert found == [max(0, number - 1), number][-number - 1 :]
    async with bucket_with(broker, NEW, OLD) as bucket:
        await bucket.reseal()
    file.write_text(NEW.hex())
    found, _ = await seen(cursor, creates=4)
    assert found == [3, 4], "this cursor was sealed with the new key"


async def test_an_entry_of_a_key_that_is_in_no_line_stops_it_and_is_named(broker: NatsServer) -> None:
    async with bucket_with(broker, OLD) as before:
        await before.put("secret", "a", b"1")
    async with bucket_with(broker, OLD, NEW) as both:
        await both._stream.put("secret.b", b"gAAAA", expected=0)
        with pytest.raises(BucketError, match=r"secret\.b was encrypted under a key that is not in the file"):
            async with bucket_with(broker, NEW, OLD) as first:
                await first.reseal()
