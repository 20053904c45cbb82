"""The store of secrets in the bucket of a cluster, on a real broker."""

from __future__ import annotations

import asyncio
import base64
import contextlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from circuit_breaker_server.log.jetstream.broker import Broker
from circuit_breaker_server.settings.cluster import ClusterSettings
from circuit_breaker_server.shared.bucket import Bucket
from circuit_breaker_server.shared.entries import BucketError
from circuit_breaker_server.shared.secrets import BucketSecrets
from circuit_breaker_server.storage.cluster_key import ClusterKey
from circuit_breaker_server.storage.secret_store import SecretStoreError
from tests.conformance.nats_server import NatsServer
from tests.conformance.secrets_suite import Opened, SecretsSuite, Store
from tests.waiting import until

KEY, OTHER_KEY = ClusterKey(b"k" * 32), ClusterKey(b"o" * 32)
STREAM = "KV_events-shared"


@pytest.fixture(name="server")
def _server(tmp_path: Path) -> Iterator[NatsServer]:
    with NatsServer(tmp_path / "nats").running() as server:
        yield server


@contextlib.asynccontextmanager
async def bucket_on(server: NatsServer, key: ClusterKey = KEY, **more: float) -> AsyncIterator[Bucket]:
    settings = ClusterSettings(urls=(server.url,), **more)  # type: ignore[arg-type]  # numbers
    bucket = await Bucket.open(settings, key)
    try:
        yield bucket
    finally:
        await bucket.aclose()


@contextlib.asynccontextmanager
async def store_on(server: NatsServer, key: ClusterKey = KEY, **more: float) -> AsyncIterator[BucketSecrets]:
    async with bucket_on(server, key, **more) as bucket:
        yield BucketSecrets(bucket)


@contextlib.asynccontextmanager
async def connected(server: NatsServer) -> AsyncIterator[Broker]:
    broker = await Broker.open(server.url, timeout_seconds=10)
    try:
        yield broker
    finally:
        await broker.aclose()


async def restart(server: NatsServer) -> None:
    server.kill()
    server.start()
    await asyncio.to_thread(server.wait_until_healthy)


class TestBucket(SecretsSuite):
    @pytest.fixture
    def opened(self, server: NatsServer) -> Opened:
        @contextlib.asynccontextmanager
        async def open_() -> AsyncIterator[Store]:
            async with store_on(server) as store:
                yield store

        return open_


async def test_what_one_node_writes_and_removes_the_other_one_sees(server: NatsServer) -> None:
    async with store_on(server) as one, store_on(server) as other:
        await one.put("a", "first")
        await until(lambda: other.get("a") == "first")
        await other.put("a", "second")
        await until(lambda: one.get("a") == "second")
        await one.remove("a")
        await until(lambda: other.get("a") is None)
        assert (one.ids(), other.ids()) == ([], [])


async def test_a_secret_that_has_not_come_yet_is_asked_for(server: NatsServer) -> None:
    async with store_on(server) as one, bucket_on(server) as bucket:
        other = BucketSecrets(bucket)
        # As on a network so slow that nothing of the watch arrives.
        await bucket._watch.aclose()
        await one.put("a", "first")
        assert other.get("a") is None
        assert await other.find("a") == "first"
        assert other.get("a") == "first", "the copy has it now"
        await other.remove("a")
        await until(lambda: one.get("a") is None)


async def test_another_cluster_key_is_told_at_the_start(server: NatsServer) -> None:
    async with store_on(server) as store:
        await store.put("a", "first")
    with pytest.raises(BucketError, match="events-shared: the bucket was encrypted under another key"):
        await Bucket.open(ClusterSettings(urls=(server.url,)), OTHER_KEY)
    async with store_on(server) as store:
        assert store.get("a") == "first"


async def test_the_broker_sees_no_secret_and_cannot_exchange_them(server: NatsServer) -> None:
    async with store_on(server) as store, connected(server) as broker:
        await store.put("a", "swordfish")
        await store.put("b", "other")
        stored = [await direct(broker, id_) for id_ in ("a", "b")]
        assert b"swordfish" not in stored[0]
        await broker.request("$KV.events-shared.secret.b", stored[0], timeout_seconds=5)
        await until(lambda: store.get("b") is None)
        assert store.get("a") == "swordfish"


async def direct(broker: Broker, id_: str) -> bytes:
    subject = f"$JS.API.DIRECT.GET.{STREAM}.$KV.events-shared.secret.{id_}"
    return (await broker.request(subject, timeout_seconds=5)).data


async def test_without_a_broker_reads_are_answered_and_writes_say_why_not(server: NatsServer) -> None:
    async with store_on(server, write_patience_seconds=0.3) as store:
        await store.put("a", "first")
        server.kill()
        assert store.get("a") == "first"
        assert await store.find("a") == "first"
        for failing in (store.put("a", "x"), store.find("b"), store.remove("a")):
            with pytest.raises(SecretStoreError, match=r"events-shared: .* now, the broker is away"):
                await failing
        assert store.get("a") == "first"
        server.start()
        await asyncio.to_thread(server.wait_until_healthy)
        await until(lambda: store._bucket.is_following)
        await store.put("a", "second")
        assert store.get("a") == "second"


async def test_a_write_waits_for_the_broker_and_the_watch_comes_back(server: NatsServer) -> None:
    async with store_on(server) as one, store_on(server) as other:
        server.kill()
        written = asyncio.create_task(one.put("a", "first"))
        await asyncio.sleep(0)
        server.start()
        await written
        await until(lambda: other.get("a") == "first")
        await one.remove("a")
        await until(lambda: other.get("a") is None)


async def test_what_was_removed_while_a_node_was_cut_off_is_gone_when_it_is_back(server: NatsServer) -> None:
    async with store_on(server) as one, bucket_on(server) as bucket, connected(server) as broker:
        other = BucketSecrets(bucket)
        await one.put("a", "first")
        await one.put("b", "second")
        await until(lambda: other.ids() == ["a", "b"])
        # As after a day: no marker is left to tell of the removal.
        await broker.api(f"STREAM.PURGE.{STREAM}", {"filter": "$KV.events-shared.secret.a"})
        assert other.get("a") == "first"
        assert bucket._watch._consumer is not None
        bucket._watch._consumer.lose("the test")
        await until(lambda: other.get("a") is None)
        assert other.get("b") == "second"


async def test_a_consumer_that_was_removed_is_replaced(server: NatsServer) -> None:
    async with store_on(server) as one, bucket_on(server) as bucket, connected(server) as broker:
        assert bucket._watch._consumer is not None
        await broker.api(f"CONSUMER.DELETE.{STREAM}.{bucket._watch._consumer._name}", {})
        await one.put("a", "first")
        await until(lambda: BucketSecrets(bucket).get("a") == "first")


async def test_a_bucket_that_is_made_anew_counts_from_its_beginning(server: NatsServer) -> None:
    async with bucket_on(server) as bucket, connected(server) as broker:
        store = BucketSecrets(bucket)
        for _ in range(20):
            await store.put("a", "old")
        await broker.api(f"STREAM.DELETE.{STREAM}", {})
        async with store_on(server) as other:
            await other.put("a", "new")
            await until(lambda: store.get("a") == "new")


async def test_a_bucket_of_another_program_is_not_used(server: NatsServer) -> None:
    async with connected(server) as broker:
        await broker.api(f"STREAM.CREATE.{STREAM}", {"name": STREAM, "subjects": ["$KV.events-shared.>"]})
    with pytest.raises(BucketError, match="was not made by this program"):
        await Bucket.open(ClusterSettings(urls=(server.url,)), KEY)


async def test_a_command_makes_no_bucket(server: NatsServer) -> None:
    with pytest.raises(BucketError, match="there is none"):
        await Bucket.open(ClusterSettings(urls=(server.url,)), KEY, makes_bucket=False)


async def test_markers_of_what_was_removed_expire(server: NatsServer) -> None:
    async with store_on(server) as store, connected(server) as broker:
        await store.put("a", "first")
        await store.remove("a")
        answer = await broker.api(f"STREAM.MSG.GET.{STREAM}", {"last_by_subj": "$KV.events-shared.secret.a"})
        assert "data" not in answer["message"]
        assert b"Nats-TTL: 86400s" in base64.b64decode(answer["message"]["hdrs"])
        config = (await broker.api(f"STREAM.INFO.{STREAM}", {}))["config"]
        assert (config["allow_msg_ttl"], config["max_msgs_per_subject"]) == (True, 1)
