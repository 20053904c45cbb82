"""Buckets on a real broker."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

from circuit_breaker_server.settings.cluster import ClusterSettings
from circuit_breaker_server.shared.bucket import Bucket
from circuit_breaker_server.storage.cluster_key import ClusterKey
from tests.conformance.nats_server import NatsServer

KEY = b"k" * 32


def on(broker: NatsServer, directory: Path, key: bytes = KEY) -> ClusterSettings:
    """Name a broker, and write a cluster key into a file of this directory."""
    path = directory / f"{key[:1].decode()}.key"
    path.touch(0o600)
    path.write_bytes(key)
    return ClusterSettings(urls=(broker.url,), key_file=path)


@contextlib.asynccontextmanager
async def bucket_on(broker: NatsServer) -> AsyncIterator[Bucket]:
    """Open the bucket for the block."""
    bucket = await Bucket.open(ClusterSettings(urls=(broker.url,)), ClusterKey(KEY))
    try:
        yield bucket
    finally:
        await bucket.aclose()
