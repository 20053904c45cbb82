"""The JetStream log keeps every rule of the port, on a real nats-server.

The habits of the server that shaped the port and the log are held here too.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import nats
import pytest
from nats.js.api import StreamConfig
from nats.js.errors import BadRequestError

from circuit_breaker_server.log.event_log import EventLog
from circuit_breaker_server.log.jetstream import JetStreamEventLog
from tests.conformance.event_log_suite import EventLogSuite, Place
from tests.conformance.guards_suite import GuardsSuite
from tests.conformance.nats_server import NatsCluster, running_nats_cluster, running_nats_server


class JetStreamPlace:
    def __init__(self, url: str, name: str, *, replicas: int = 1) -> None:
        self.url = url
        self.name = name
        self.replicas = replicas

    async def open(self) -> EventLog:
        return await JetStreamEventLog.open(self.url, name=self.name, replicas=self.replicas)

    async def make_hole(self, offset: int) -> None:
        client = await nats.connect(self.url.split(","))
        await client.jetstream().delete_msg(self.name, offset)
        await client.close()


@pytest.fixture(scope="module")
def server_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running_nats_server(tmp_path_factory.mktemp("nats")) as url:
        yield url


class TestJetStreamEventLog(EventLogSuite, GuardsSuite):
    @pytest.fixture
    def place(self, server_url: str) -> Place:
        return JetStreamPlace(server_url, f"log-{uuid.uuid4().hex}")

    @pytest.fixture
    def other_place(self, server_url: str) -> Place:
        return JetStreamPlace(server_url, f"log-{uuid.uuid4().hex}")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsCluster]:
    with running_nats_cluster(tmp_path_factory.mktemp("cluster")) as cluster:
        yield cluster


class TestJetStreamEventLogOnThreeServers(EventLogSuite, GuardsSuite):
    @pytest.fixture
    def place(self, cluster: NatsCluster) -> Place:
        return JetStreamPlace(cluster.url, f"log-{uuid.uuid4().hex}", replicas=3)

    @pytest.fixture
    def other_place(self, cluster: NatsCluster) -> Place:
        return JetStreamPlace(cluster.url, f"log-{uuid.uuid4().hex}", replicas=3)


async def test_the_server_answers_a_repeated_id_as_a_conflict_and_forgets_expectations_when_purged(
    server_url: str,
) -> None:
    client = await nats.connect(server_url)
    stream = client.jetstream()
    await stream.add_stream(StreamConfig(name="habits", subjects=["habits.>"]))

    async def publish(message_id: str, expected: int) -> tuple[int, bool]:
        answer = await stream.publish(
            "habits.a",
            headers={"Nats-Msg-Id": message_id, "Nats-Expected-Last-Subject-Sequence": str(expected)},
        )
        return answer.seq, bool(answer.duplicate)

    assert await publish("one", 0) == (1, False)
    with pytest.raises(BadRequestError, match="err_code=10071"):
        await publish("one", 0)
    assert await publish("one", 1) == (1, True)
    await stream.purge_stream("habits")
    with pytest.raises(BadRequestError, match="err_code=10071"):
        await publish("two", 1)
    assert await publish("two", 0) == (2, False)
    assert await publish("one", 2) == (1, True), "remembered, though its record is gone"
    await client.close()
