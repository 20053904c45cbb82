"""A broker for each test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conformance.nats_server import NatsServer


@pytest.fixture(name="broker")
def _broker(tmp_path: Path) -> Iterator[NatsServer]:
    with NatsServer(tmp_path / "nats").running() as broker:
        yield broker
