"""Whole servers that share one log on a real broker, and clients that go from one to another."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from circuit_breaker_sdk import Client
from circuit_breaker_sdk.events import ActivityInput, StateInput
from circuit_breaker_sdk.protocol.positions import HEADER, Positions
from circuit_breaker_server import ClusterSettings, Server, ServerSettings, ServerStartError
from tests.conformance.nats_server import NatsServer
from tests.server.operations import CREATE_RESOURCE, CREATE_WORKFLOW, EVENTS, EXECUTE, WORKFLOW
from tests.server.site import Site, site


@pytest.fixture(name="broker")
def _broker(tmp_path: Path) -> Iterator[NatsServer]:
    with NatsServer(tmp_path / "nats").running() as broker:
        yield broker


@pytest.fixture(name="key_file")
def _key_file(tmp_path: Path) -> Path:
    path = tmp_path / "cluster.key"
    path.write_text(secrets.token_hex(32))
    path.chmod(0o600)
    return path


class Sites:
    """Makes servers by name, each with a data directory of its own."""

    def __init__(self, tmp_path: Path, broker: NatsServer, key_file: Path) -> None:
        self._tmp_path = tmp_path
        self._broker = broker
        self._key_file = key_file

    def __call__(self, name: str):  # type: ignore[no-untyped-def]  # a context manager of a site
        return site(self._tmp_path / name, cluster=self.settings(name))

    def settings(self, name: str, *, with_key: bool = True) -> ClusterSettings:
        return ClusterSettings(
            urls=(self._broker.url,), node=name, key_file=self._key_file if with_key else None
        )


@pytest.fixture(name="sites")
def _sites(tmp_path: Path, broker: NatsServer, key_file: Path) -> Sites:
    return Sites(tmp_path, broker, key_file)


async def post(
    running: Site, query: str, variables: dict[str, object], *, seen: str = ""
) -> tuple[dict[str, object], str]:
    headers = {HEADER: seen} if seen else {}
    body = {"query": query, "variables": variables}
    async with running.http.post(running.server.url, json=body, headers=headers) as answer:
        return msgspec.json.decode(await answer.read(), type=dict[str, object]), answer.headers[HEADER]


WORKFLOW_BY_ID = "query($id: String!) { workflow(id: $id) { name } }"


async def test_what_was_written_at_one_node_is_read_at_another(sites: Sites) -> None:
    async with sites("a") as a, sites("b") as b:
        for number in range(200):
            one, other = (a, b) if number % 2 else (b, a)
            made, seen = await post(one, CREATE_WORKFLOW, {"input": WORKFLOW})
            id_ = made["data"]["createWorkflow"]["id"]  # type: ignore[index]  # it is JSON
            read, _ = await post(other, WORKFLOW_BY_ID, {"id": id_}, seen=seen)
            assert read == {"data": {"workflow": {"name": WORKFLOW["name"]}}}


async def test_a_position_that_is_none_is_ignored(sites: Sites) -> None:
    async with sites("a") as a:
        for seen in ("rubbish", "0123456789abcdef.99.0.00000000", ",,"):
            read, _ = await post(a, "{ health }", {}, seen=seen)
            assert read == {"data": {"health": "ok"}}


async def test_the_client_reads_at_one_node_what_it_wrote_at_another(sites: Sites) -> None:
    async with sites("a") as a, sites("b") as b, Client([a.server.url, b.server.url]) as client:
        executor = client._parts.executor
        for number in range(100):
            executor._serving = number % 2
            workflow = await client.workflows.create_workflow(
                name="review",
                states=[StateInput(id="draft", name="Draft")],
                activities=[ActivityInput(id="edit", from_states=["draft"], to_state="draft")],
                initial_state="draft",
            )
            executor._serving = 1 - number % 2
            assert (await client.workflows.workflow(id=workflow.id)) is not None


async def test_a_subscription_to_what_another_node_has_just_made_is_not_refused(sites: Sites) -> None:
    async with sites("a") as a, sites("b") as b:
        client = await b.open()
        await client.init()
        for number in range(50):
            made, seen = await post(a, CREATE_WORKFLOW, {"input": WORKFLOW})
            id_ = made["data"]["createWorkflow"]["id"]  # type: ignore[index]  # it is JSON
            client.subscribe(str(number), EVENTS, {"id": id_}, position=seen)
            await client.live(str(number))


async def test_a_subscriber_goes_on_at_another_node_with_the_same_cursor(sites: Sites) -> None:
    async with sites("b") as b:
        async with sites("a") as a:
            workflow, start = await a.made(CREATE_WORKFLOW, WORKFLOW)
            resource, _ = await a.made(CREATE_RESOURCE, {"workflowId": workflow})
            await a.made(EXECUTE, {"resourceId": resource, "activityId": "ping"})
            at_a = await a.open()
            await at_a.init()
            at_a.subscribe("1", EVENTS, {"id": workflow}, after=start)
            live = [await at_a.receive_bytes() for _ in range(4)]
        at_b = await b.open()
        await at_b.init()
        at_b.subscribe("1", EVENTS, {"id": workflow}, after=start)
        assert [await at_b.receive_bytes() for _ in range(4)] == live


async def test_a_node_without_the_cluster_key_does_not_start_beside_others(
    tmp_path: Path, sites: Sites
) -> None:
    async with sites("a"):
        settings = ServerSettings(
            data_dir=tmp_path / "b", port=0, cluster=sites.settings("b", with_key=False), log_level="critical"
        )
        with pytest.raises(ServerStartError, match="node b shares the event log with a, and has no cluster"):
            await Server(settings).start()


async def test_a_server_whose_name_another_one_takes_stops_and_says_why(sites: Sites, tmp_path: Path) -> None:
    async with sites("a") as a:
        second = ServerSettings(
            data_dir=tmp_path / "second", port=0, cluster=sites.settings("a"), log_level="critical"
        )
        async with Server(second) as again:
            await asyncio.wait_for(a.server.wait(), 10)
            assert "another server has joined as node a" in str(a.server.failure)
            assert again.engine.nodes.lives


async def test_all_nodes_are_told_of_by_each(sites: Sites) -> None:
    async with sites("a") as a, sites("b"):
        headers = {"Accept": "application/json"}

        async def nodes() -> list[dict[str, object]]:
            async with a.http.get(a.root + "/health", headers=headers) as answer:
                told = msgspec.json.decode(await answer.read(), type=dict[str, object])
                return msgspec.convert(told["nodes"], list[dict[str, object]])

        async with asyncio.timeout(10):
            while (told := await nodes())[1]["recordsBehind"] is None:
                continue
        assert [(each["name"], each["term"], each["status"]) for each in told] == [
            ("a", 1, "live"),
            ("b", 1, "live"),
        ]
        assert str(told[0]["address"]).endswith("/graphql")


def test_an_answer_stands_for_the_positions_that_its_request_has_named() -> None:
    positions = Positions()

    def named() -> tuple[str, ...]:
        return positions.named

    assert named() == ()
    positions.answered((), None)
    positions.answered((), "1")
    positions.answered((), "2")
    assert named() == ("1", "2")
    positions.answered(("1", "2"), "3")
    assert named() == ("3",)
    for number in range(20):
        positions.answered((), f"n{number}")
    assert len(named()) == 8
    assert named()[-1] == "n19"
