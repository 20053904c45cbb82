"""A whole server whose event log is on a real broker: it resumes, and outlives the broker's absence."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from circuit_breaker_sdk import Client
from circuit_breaker_sdk.events import ActivityInput, StateInput
from circuit_breaker_sdk.testing import FaultProxy
from circuit_breaker_sdk.testing.fault_proxy import Direction
from circuit_breaker_server import ClusterSettings, Server, ServerSettings, ServerStartError
from tests.conformance.nats_server import NatsServer
from tests.server.log.jetstream.log_stage import api, connected, everything, opened
from tests.server.operations import CREATE_RESOURCE, CREATE_WORKFLOW, EVENTS, EXECUTE, WORKFLOW
from tests.server.site import Site, site

AWAY = "the event log's broker is away"


@pytest.fixture(name="broker")
def _broker(tmp_path: Path) -> Iterator[NatsServer]:
    with NatsServer(tmp_path / "nats").running() as broker:
        yield broker


def on(broker: NatsServer, **more: float) -> ClusterSettings:
    return ClusterSettings(urls=(broker.url,), **more)  # type: ignore[arg-type]  # the test's numbers


async def restart(broker: NatsServer) -> None:
    broker.kill()
    broker.start()
    await asyncio.to_thread(broker.wait_until_healthy)


async def reasons(running: Site) -> list[str]:
    async with running.http.get(running.root + "/health/ready") as answer:
        body = msgspec.json.decode(await answer.read(), type=dict[str, object])
        return msgspec.convert(body.get("reasons", []), list[str])


async def until_ready(running: Site) -> None:
    async with asyncio.timeout(30):
        while await reasons(running):  # each look is a request
            continue


async def test_a_cursor_outlives_the_server_and_the_broker(tmp_path: Path, broker: NatsServer) -> None:
    async with site(tmp_path / "data", cluster=on(broker)) as running:
        workflow, start = await running.made(CREATE_WORKFLOW, WORKFLOW)
        resource, _ = await running.made(CREATE_RESOURCE, {"workflowId": workflow})
        client = await running.open()
        await client.init()
        client.subscribe("1", EVENTS, {"id": workflow})
        await client.live("1")
        await running.made(EXECUTE, {"resourceId": resource, "activityId": "ping"})
        live = [await client.receive_bytes() for _ in range(2)]
        await restart(broker)
        await until_ready(running)
        await running.made(EXECUTE, {"resourceId": resource, "activityId": "pong"})
        live += [await client.receive_bytes() for _ in range(2)]
        counts = running.server.instruments
        assert sum(counts.group_records.counts) > 0
        assert sum(counts.append_seconds.counts) == 5, "the node's join, and four mutations"
    assert not (tmp_path / "data" / "events.db").exists()
    await restart(broker)
    async with site(tmp_path / "data", cluster=on(broker)) as running:
        client = await running.open()
        await client.init()
        client.subscribe("1", EVENTS, {"id": workflow}, after=start)
        assert await client.live("1") == start
        created = await client.next_of("1")
        assert created["data"]["workflowEvents"]["eventType"] == "RESOURCE_CREATED"
        again = [await client.receive_bytes() for _ in range(4)]
        # The first event after a subscribe is the subscriber's own in one thing: the cursor before it.
        assert again[1:] == live[1:]


async def test_without_a_broker_queries_answer_and_mutations_are_unavailable(
    tmp_path: Path, broker: NatsServer
) -> None:
    async with site(tmp_path / "data", cluster=on(broker, write_patience_seconds=0.3)) as running:
        workflow, _ = await running.made(CREATE_WORKFLOW, WORKFLOW)
        client = await running.open()
        await client.init()
        client.subscribe("1", EVENTS, {"id": workflow})
        await client.live("1")
        broker.kill()
        refused = await running.post(CREATE_RESOURCE, {"input": {"workflowId": workflow}})
        assert '"UNAVAILABLE"' in msgspec.json.encode(refused).decode()
        assert await reasons(running) == [AWAY]
        assert await running.post("{ health }") == {"data": {"health": "ok"}}
        broker.start()
        await asyncio.to_thread(broker.wait_until_healthy)
        await until_ready(running)
        await running.made(CREATE_RESOURCE, {"workflowId": workflow})
        created = await client.next_of("1")
        assert created["data"]["workflowEvents"]["eventType"] == "RESOURCE_CREATED", "it stayed up"


async def test_a_mutation_waits_for_the_broker(tmp_path: Path, broker: NatsServer) -> None:
    async with site(tmp_path / "data", cluster=on(broker)) as running:
        broker.kill()
        made = asyncio.create_task(running.made(CREATE_WORKFLOW, WORKFLOW))
        await asyncio.sleep(0)
        broker.start()
        workflow, _ = await made
        await running.made(CREATE_RESOURCE, {"workflowId": workflow})


@pytest.mark.parametrize("direction", list(Direction))
async def test_a_mutation_without_an_answer_of_the_broker_happens_once_under_its_key(
    tmp_path: Path, broker: NatsServer, direction: Direction
) -> None:
    async with FaultProxy("127.0.0.1", broker.port) as proxy:
        cluster = ClusterSettings(urls=(f"nats://127.0.0.1:{proxy.port}",), write_patience_seconds=0.3)
        async with site(tmp_path / "data", cluster=cluster) as running:

            async def send() -> tuple[str, bool]:
                body = {"query": CREATE_WORKFLOW, "variables": {"input": WORKFLOW}}
                headers = {"Idempotency-Key": "k"}
                async with running.http.post(running.server.url, json=body, headers=headers) as answer:
                    text = await answer.text()
                    return text, '"errors"' in text

            proxy.stall(direction)
            text, is_refused = await send()
            assert is_refused
            assert '"mayHaveHappened":true' in text
            proxy.cut()
            proxy.flow()
            while is_refused:  # the broker is being connected again
                text, is_refused = await send()
            assert (await send())[0] == text
            (made,) = running.server.engine.workflows.workflows()
            assert str(made["id"]) in text
    async with opened(broker.url) as log:
        of_nodes = ["node.main", "node.main"]
        subjects = sorted(record.subject.partition("workflow.")[0] for record in await everything(log))
        assert subjects == ["", *of_nodes], "the node has joined and left, and made one workflow"


async def test_a_server_whose_stream_is_replaced_stops(tmp_path: Path, broker: NatsServer) -> None:
    settings = ServerSettings(data_dir=tmp_path / "data", port=0, log_level="critical", cluster=on(broker))
    async with Server(settings) as server:
        async with connected(broker.url) as client:
            for name in ("events", "events-state"):
                await api(client, f"STREAM.DELETE.{name}")
            other = ServerSettings(
                data_dir=tmp_path / "other", port=0, log_level="critical", cluster=on(broker)
            )
            async with Server(other):
                await server.wait()
        assert server.failure is not None
        assert "replaced by another log" in server.failure


async def test_a_message_of_another_program_at_the_end_of_the_stream_harms_nothing(
    tmp_path: Path, broker: NatsServer
) -> None:
    async with connected(broker.url) as other:
        for _ in range(2):
            async with site(tmp_path / "data", cluster=on(broker), snapshot_every=1) as running:
                await other.jetstream().publish("events.foreign", b"not ours")
                await running.made(CREATE_WORKFLOW, WORKFLOW)
                await other.jetstream().publish("events.foreign", b"not ours")
                assert await reasons(running) == []
            assert running.server.failure is None


async def test_the_data_directory_has_one_server(tmp_path: Path, broker: NatsServer) -> None:
    settings = ServerSettings(data_dir=tmp_path / "data", port=0, log_level="critical", cluster=on(broker))
    async with Server(settings):
        with pytest.raises(ServerStartError, match="in use by another process"):
            await Server(settings).start()


async def test_no_mutation_is_lost_or_doubled_while_the_broker_is_restarted_twice(
    tmp_path: Path, broker: NatsServer
) -> None:
    count, lanes = 200, 8
    settings = ServerSettings(data_dir=tmp_path / "data", port=0, log_level="critical", cluster=on(broker))
    made: list[str] = []
    progress = asyncio.Event()

    async with Server(settings) as server, Client(server.url) as client:
        workflow = await client.workflows.create_workflow(
            name="w",
            initial_state="a",
            states=[StateInput(id="a", name="A")],
            activities=[ActivityInput(id="go", from_states=["a"], to_state="a")],
        )
        updates = await client.workflows.subscribe_resource_updates(workflow_id=workflow.id).subscribe()

        async def create(lane: int) -> None:
            for _ in range(lane, count, lanes):
                made.append((await client.workflows.create_resource(workflow_id=workflow.id)).id)
                progress.set()

        async def break_twice() -> None:
            for after in (count // 4, count // 2):
                while len(made) < after:
                    progress.clear()
                    await progress.wait()
                await restart(broker)

        async with asyncio.timeout(120):
            await asyncio.gather(break_twice(), *map(create, range(lanes)))
            seen = [(await anext(updates)).id for _ in range(count)]
        assert len(made) == len(set(made)) == count
        assert sorted(seen) == sorted(made)
        stored = [str(each["id"]) for each in server.engine.workflows.resources(workflow.id)]
        assert sorted(stored) == sorted(made)
