"""A server on a real broker with a cluster key: its secrets are in the bucket."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from circuit_breaker_server import ClusterSettings, Server, ServerSettings, ServerStartError
from circuit_breaker_server.shared.bucket import Bucket
from circuit_breaker_server.shared.entries import BucketError
from circuit_breaker_server.shared.secrets import BucketSecrets
from circuit_breaker_server.storage.cluster_key import ClusterKey
from circuit_breaker_server.storage.secret_store import SecretStore
from tests.conformance.nats_server import NatsServer
from tests.server.shared.bucket_stage import on
from tests.server.site import site


async def secrets_of(cluster: ClusterSettings) -> dict[str, str | None]:
    bucket = await Bucket.open(cluster, ClusterKey(b"k" * 32), makes_bucket=False)
    try:
        secrets = BucketSecrets(bucket)
        return {id_: secrets.get(id_) for id_ in secrets.ids()}
    finally:
        await bucket.aclose()


async def test_secrets_of_the_directory_move_into_the_bucket_once(tmp_path: Path, broker: NatsServer) -> None:
    data = tmp_path / "data"
    data.mkdir()
    store = await SecretStore.open(data)
    await store.put("kept-1", "swordfish")
    cluster = on(broker, tmp_path)
    for _ in range(2):
        async with site(data, cluster=cluster):
            assert not (data / "secrets.db").exists()
            assert (data / "secrets.db.moved").exists()
        assert await secrets_of(cluster) == {"kept-1": "swordfish"}


async def test_a_server_with_another_cluster_key_does_not_start(tmp_path: Path, broker: NatsServer) -> None:
    async with site(tmp_path / "one", cluster=on(broker, tmp_path)):
        pass
    other = ServerSettings(data_dir=tmp_path / "two", port=0, cluster=on(broker, tmp_path, b"o" * 32))
    with pytest.raises(ServerStartError, match="the bucket was encrypted under another key"):
        await Server(other).start()
    async with site(tmp_path / "one", cluster=on(broker, tmp_path)):
        pass


async def test_without_a_cluster_key_there_is_no_bucket(tmp_path: Path, broker: NatsServer) -> None:
    async with site(tmp_path / "data", cluster=ClusterSettings(urls=(broker.url,))):
        assert (tmp_path / "data" / "secrets.db").exists()
    with pytest.raises(BucketError, match="there is none"):
        await secrets_of(ClusterSettings(urls=(broker.url,)))


async def test_a_server_that_does_not_follow_the_bucket_is_not_ready(
    tmp_path: Path, broker: NatsServer
) -> None:
    async with site(tmp_path / "data", cluster=on(broker, tmp_path)) as running:

        async def reasons() -> str:
            async with running.http.get(f"{running.root}/health/ready") as answer:
                return await answer.text()

        assert "bucket" not in await reasons()
        broker.kill()
        async with asyncio.timeout(30):
            while "the bucket events-shared is not followed" not in await reasons():
                pass
        broker.start()
        broker.wait_until_healthy()
        async with asyncio.timeout(30):
            while "bucket" in await reasons():
                pass
