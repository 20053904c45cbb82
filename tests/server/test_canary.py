"""A canary follows a cluster's log, takes no part, and stops alone at what it cannot read."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from circuit_breaker_server import ClusterSettings, RecordNotAppliedError, ServerSettings, ServerStartError
from circuit_breaker_server.canary import Canary
from tests.conformance.nats_server import NatsServer
from tests.server.engine.ghost_record import ghost
from tests.server.log.jetstream.log_stage import everything, opened
from tests.server.operations import CREATE_RESOURCE, CREATE_WORKFLOW, WORKFLOW
from tests.server.site import site
from tests.waiting import until


@pytest.fixture(name="broker")
def _broker(tmp_path: Path) -> Iterator[NatsServer]:
    with NatsServer(tmp_path / "nats").running() as broker:
        yield broker


def settings(directory: Path, broker: NatsServer) -> ServerSettings:
    cluster = ClusterSettings(urls=(broker.url,))
    return ServerSettings(data_dir=directory, port=0, cluster=cluster, log_level="critical")


async def test_it_follows_and_writes_nothing(tmp_path: Path, broker: NatsServer) -> None:
    cluster = ClusterSettings(urls=(broker.url,))
    async with site(tmp_path / "a", cluster=cluster) as running:
        workflow, _ = await running.made(CREATE_WORKFLOW, WORKFLOW)
        canary = await Canary.start(settings(tmp_path / "canary", broker))
        before = canary.offset
        await running.made(CREATE_RESOURCE, {"workflowId": workflow})
        await until(lambda: canary.offset == before + 1)
        await canary.aclose()
        assert canary.failure is None
        assert [entry.name for entry in running.server.engine.nodes.all()] == ["main"]
    async with opened(broker.url) as log:
        subjects = [record.subject.partition(".")[0] for record in await everything(log)]
        assert subjects == ["node", "workflow", "resource", "node"]


async def test_what_it_cannot_read_stops_it_alone(tmp_path: Path, broker: NatsServer) -> None:
    async with opened(broker.url) as log:
        canary = await Canary.start(settings(tmp_path / "canary", broker))
        broken = await log.append(ghost())
        async with asyncio.timeout(10):
            await canary.wait()
        await canary.aclose()
        assert str(canary.failure).startswith(f"record {broken.offset} ")
        with pytest.raises(RecordNotAppliedError, match=f"record {broken.offset} "):
            await Canary.start(settings(tmp_path / "canary", broker))


async def test_a_log_that_no_other_server_has_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ServerStartError, match="name it with --log"):
        await Canary.start(ServerSettings(data_dir=tmp_path))
