"""The streams beside a log have as many replicas as the log, whoever has made them first."""

from __future__ import annotations

from pathlib import Path

import nats
import pytest

from circuit_breaker_server.log.jetstream import JetStreamEventLog
from circuit_breaker_server.settings.cluster import ClusterSettings
from circuit_breaker_server.shared.bucket import Bucket
from circuit_breaker_server.storage.cluster_key import ClusterKey
from tests.conformance.nats_server import NatsCluster, NatsServer
from tests.server.log.jetstream.log_stage import api
from tests.server.shared.bucket_stage import KEY


async def replicas(url: str, *streams: str) -> list[int]:
    client = await nats.connect(url.split(","))
    try:
        return [int((await api(client, f"STREAM.INFO.{each}"))["config"]["num_replicas"]) for each in streams]
    finally:
        await client.close()


async def open_and_close(url: str, *, wanted: int) -> None:
    """Open log and bucket as a node does."""
    log = await JetStreamEventLog.open(url, replicas=wanted)
    bucket = await Bucket.open(ClusterSettings(urls=tuple(url.split(","))), ClusterKey(KEY))
    await bucket.aclose()
    await log.aclose()


async def test_a_bucket_made_before_the_log_gets_the_replicas_of_the_log(tmp_path: Path) -> None:
    with NatsCluster(tmp_path).running() as brokers:
        urls = tuple(brokers.url.split(","))
        early = await Bucket.open(ClusterSettings(urls=urls), ClusterKey(KEY))
        await early.put("api-key", "a", b"kept")
        await early.aclose()
        assert await replicas(brokers.url, "KV_events-shared") == [1]
        await open_and_close(brokers.url, wanted=3)
        assert await replicas(brokers.url, "KV_events-shared", "events", "events-state") == [3, 3, 3]
        again = await Bucket.open(ClusterSettings(urls=urls), ClusterKey(KEY))
        assert again.get("api-key", "a") == b"kept"
        await again.aclose()


async def test_a_log_that_was_given_more_replicas_gives_them_to_the_streams_beside_it(tmp_path: Path) -> None:
    with NatsCluster(tmp_path).running() as brokers:
        await open_and_close(brokers.url, wanted=1)
        client = await nats.connect(brokers.url.split(","))
        config = (await api(client, "STREAM.INFO.events"))["config"]
        await api(client, "STREAM.UPDATE.events", {**config, "num_replicas": 3})
        await client.close()
        await open_and_close(brokers.url, wanted=1)
        assert await replicas(brokers.url, "events-state", "KV_events-shared") == [3, 3]


async def test_replicas_that_cannot_be_had_are_told_and_the_start_goes_on(
    broker: NatsServer, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    await open_and_close(broker.url, wanted=1)
    monkeypatch.setattr("circuit_breaker_server.shared.bucket_stream.replicas_of", lambda _info: 3)
    assert "event=event_log_made" in capsys.readouterr().err
    await open_and_close(broker.url, wanted=1)
    said = capsys.readouterr().err
    assert "event=replicas_not_raised" in said
    assert "event=event_log_made" not in said
    assert await replicas(broker.url, "KV_events-shared") == [1]
