"""Several nodes on one log: who lives, who owns what, and what a node that was declared gone can still do."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from circuit_breaker_server.engine import event_derivation
from circuit_breaker_server.engine.engine import Engine
from circuit_breaker_server.engine.errors import EngineError, ErrorCode
from circuit_breaker_server.engine.event_derivation import derive
from circuit_breaker_server.engine.mcp.oauth import Tokens
from circuit_breaker_server.engine.nodes.membership import GONE_AFTER, NodeReplaced
from circuit_breaker_server.engine.nodes.ownership import Identity, Ownership
from circuit_breaker_server.engine.nodes.state import NodeState
from tests.server.engine.agents.worlds import World
from tests.server.engine.llm.endpoint import serving_provider
from tests.server.engine.llm.inputs import ask, provider
from tests.server.engine.mcp.worlds import server_input
from tests.server.engine.memory_log import MemoryLog
from tests.server.engine.shared.nodes import Cluster, Node, cluster
from tests.server.engine.worlds import create_resource, create_workflow, plain


def statuses(node: Node) -> dict[str, tuple[int, str]]:
    return {each.name: (each.term, each.status) for each in node.engine.nodes.all()}


def is_cut_off(node: Node) -> bool:
    return node.membership.is_cut_off


def events(cluster: Cluster, stream: str) -> list[dict[str, object]]:
    return [
        event.whole for record in cluster.log.records for event in derive(record) if event.stream == stream
    ]


def count(cluster: Cluster, stream: str, type_: str) -> int:
    return sum(event.get("eventType", event.get("type")) == type_ for event in events(cluster, stream))


async def prepared(cluster: Cluster, engine: Engine) -> World:
    workflow = await create_workflow(engine.workflows)
    resource = await create_resource(
        engine.workflows, workflow, data={"title": "Plan"}, metadata={"role": "strict"}
    )
    cluster.deliver()
    return World(engine, workflow, resource)


# --- who lives -----------------------------------------------------------------------------------------


async def test_all_nodes_know_who_has_joined_and_who_has_left() -> None:
    async with cluster("a", "b", "c") as made:
        nodes = made.nodes
        assert statuses(nodes["a"]) == statuses(nodes["c"]) == dict.fromkeys("abc", (1, "live"))
        await nodes["b"].engine.aclose()
        made.deliver()
        assert statuses(nodes["a"]) == {"a": (1, "live"), "b": (1, "left"), "c": (1, "live")}
        del made.nodes["b"]
        again = await made.start("b")
        assert statuses(nodes["a"])["b"] == (2, "live")
        assert again.engine.nodes.me.term == 2


async def test_a_node_that_misses_ten_heartbeats_is_declared_gone_once() -> None:
    async with cluster("a", "b", "c") as made:
        made.nodes["b"].is_paused = True
        await made.beat(GONE_AFTER)
        assert statuses(made.nodes["a"])["b"] == (1, "live")
        await made.beat(2)
        assert statuses(made.nodes["a"]) == statuses(made.nodes["c"])
        assert statuses(made.nodes["a"])["b"] == (1, "gone")
        gone = [record for record in made.log.records if b'"node_gone"' in record.data]
        assert len(gone) == 1


async def test_a_node_that_is_heard_in_between_is_not_declared_gone() -> None:
    async with cluster("a", "b") as made:
        for _ in range(4):
            made.nodes["b"].is_paused = True
            await made.beat(GONE_AFTER - 1)
            made.nodes["b"].is_paused = False
            await made.beat()
        assert statuses(made.nodes["a"])["b"] == (1, "live")


async def test_an_outage_of_the_broker_declares_nobody_gone_and_the_count_begins_anew() -> None:
    async with cluster("a", "b") as made:
        made.nodes["b"].is_paused = True
        await made.beat(GONE_AFTER)
        made.bus.is_up = False
        await made.beat(40)
        assert is_cut_off(made.nodes["a"])
        assert statuses(made.nodes["a"])["b"] == (1, "live")
        made.bus.is_up = True
        await made.beat(GONE_AFTER)
        assert not is_cut_off(made.nodes["a"])
        assert statuses(made.nodes["a"])["b"] == (1, "live")
        await made.beat(3)
        assert statuses(made.nodes["a"])["b"] == (1, "gone")


async def test_a_node_that_alone_is_cut_off_declares_nobody_gone() -> None:
    async with cluster("a", "b") as made:
        made.bus.cut_off.add(made.nodes["a"].membership._heard)
        await made.beat(40)
        assert statuses(made.nodes["b"]) == {"a": (1, "live"), "b": (1, "live")}


async def test_a_node_that_was_declared_gone_joins_again_in_a_new_term() -> None:
    async with cluster("a", "b") as made:
        a = made.nodes["a"]
        a.is_paused = True
        await made.beat(GONE_AFTER + 1)
        assert statuses(made.nodes["b"])["a"] == (1, "gone")
        a.is_paused = False
        made.deliver()
        assert not a.engine.nodes.lives
        await made.beat()
        assert statuses(made.nodes["b"])["a"] == (2, "live")
        assert a.engine.nodes.lives


async def test_a_node_whose_name_another_server_takes_stops() -> None:
    async with cluster("a", "b") as made:
        first = made.nodes.pop("a")
        await made.start("a")
        first.view.deliver()
        with pytest.raises(NodeReplaced, match="node a: give each server a name of its own"):
            await first.membership.beat()
        await first.engine.aclose()
        made.deliver()
        assert statuses(made.nodes["b"])["a"] == (2, "live"), "the first one leaves in nobody's name"


def test_every_kind_of_record_has_its_events_if_none() -> None:
    engine = Engine(MemoryLog())
    for token in engine._folding.state._by_token:
        assert token in event_derivation._BY_TOKEN


# --- who owns what -------------------------------------------------------------------------------------


async def test_work_has_one_owner_and_few_change_it_when_a_node_comes() -> None:
    async with cluster("a", "b", "c") as made:

        def owners(names: str) -> list[str]:
            found = []
            for number in range(300):
                mine = [name for name in names if _ownership(made.nodes[name]).is_mine(f"timer/{number}")]
                assert len(mine) == 1
                found += mine
            return found

        before = owners("abc")
        assert all(60 < before.count(name) < 140 for name in "abc")
        await made.start("d")
        after = owners("abcd")
        assert all(new in (old, "d") for old, new in zip(before, after, strict=True))


def _ownership(node: Node) -> Ownership:
    return node.engine.costs._ownership


def test_a_server_that_is_alone_owns_everything() -> None:
    ownership = Ownership(NodeState(), Identity())
    assert ownership.is_mine("timer/1")
    assert ownership.is_mine_as_recorded("run/1", node="a", term=3)
    assert ownership.fence(decided_at=7) is None


async def test_a_run_runs_on_the_node_that_was_asked_only() -> None:
    async with cluster("a", "b", "c") as made:
        world = await prepared(made, made.nodes["b"].engine)
        await world.configure(await world.agent())
        made.deliver()
        (run,) = await world.trigger()
        await made.until(lambda: world.run_of(run)["completedAt"])
        made.deliver()
        assert count(made, "agentExecutionStream", "STARTED") == 1
        for node in made.nodes.values():
            assert plain(node.engine.agents.execution(run)) == world.run_of(run)


async def test_a_run_that_lost_its_node_is_ended_once_and_the_node_that_wakes_changes_nothing() -> None:
    async with serving_provider() as fake, cluster("a", "b", "c") as made:
        a, b = made.nodes["a"], made.nodes["b"]
        world = await prepared(made, a.engine)
        await world.configure(await world.asking(fake.url, "gpt-held"), autoActivity="submit")
        made.deliver()
        (run,) = await world.trigger()
        await made.until(lambda: count(made, "agentExecutionStream", "PROGRESS") == 3)
        made.deliver()
        a.is_paused = True
        await made.beat(GONE_AFTER + 1)
        await made.until(lambda: count(made, "agentExecutionStream", "FAILED") == 1)
        made.deliver()
        ended = plain(b.engine.agents.execution(run))
        assert ended["errorMessage"] == "interrupted: the server stopped"
        resource = plain(b.engine.workflows.resource(world.resource))
        # The node goes on with a state that does not know of its end: the log refuses what it writes.
        before = len(made.log.records)
        fake.hold.set()
        await asyncio.sleep(0.05)
        assert len(made.log.records) == before
        a.is_paused = False
        made.deliver()
        await made.beat(2)
        assert count(made, "agentExecutionStream", "FAILED") == 1
        assert plain(b.engine.workflows.resource(world.resource)) == resource
        assert statuses(b)["a"] == (2, "live")


async def test_a_run_writes_no_resource_once_it_was_ended_by_others() -> None:
    async with serving_provider() as fake, cluster("a", "b") as made:
        a, b = made.nodes["a"], made.nodes["b"]
        world = await prepared(made, a.engine)
        await world.configure(await world.asking(fake.url, "gpt-held"), autoActivity="submit")
        made.deliver()
        (run,) = await world.trigger()
        await made.until(lambda: count(made, "agentExecutionStream", "PROGRESS") == 3)
        made.deliver()
        a.is_paused = True
        await b.engine.agents.cancel(run)
        made.deliver()
        fake.hold.set()
        await asyncio.sleep(0.05)
        assert b.engine.workflows.view(world.resource).state == "draft"
        a.is_paused = False
        made.deliver()
        assert count(made, "agentExecutionStream", "CANCELLED") == 1
        assert count(made, "agentExecutionStream", "FAILED") == 0


async def test_a_completion_that_lost_its_node_ends_with_an_error_once() -> None:
    async with serving_provider() as fake, cluster("a", "b", "c") as made:
        a = made.nodes["a"]
        made.secrets.values["work"] = "secret"
        await a.engine.llm.configure_provider(provider(fake.url))
        made.deliver()
        asking = asyncio.create_task(a.engine.llm.complete(ask("gpt-hang", stream=True, requestId="r1")))
        await made.until(lambda: count(made, "llmStream", "CONTENT_DELTA") == 3)
        a.is_paused = True
        await made.beat(GONE_AFTER + 1)
        await made.until(lambda: count(made, "llmStream", "STREAM_ERROR") == 1)
        a.is_paused = False
        made.deliver()
        with pytest.raises(EngineError) as raised:
            await asking
        assert raised.value.code is ErrorCode.UNAVAILABLE
        await made.beat(2)
        assert count(made, "llmStream", "STREAM_ERROR") == 1
        assert count(made, "llmStream", "STREAM_END") == 0


async def test_a_session_expires_once_whoever_watches_the_clock() -> None:
    async with cluster("a", "b", "c") as made:
        engine = made.nodes["a"].engine
        server = await engine.mcp.servers.create(server_input("http://127.0.0.1:1/mcp", enabled=False))
        for _ in range(12):
            await engine.mcp.sessions.create(
                str(server.value["id"]), "ada", "JWT", Tokens(access_token="t"), None
            )
        made.deliver()
        made.nodes["b"].is_paused = True
        await made.beat(GONE_AFTER + 1)
        gone = made.nodes["b"]
        written = gone.view.appended
        made.now += timedelta(days=2)  # the other nodes' own timers may see it at any moment from here on
        await gone.engine.mcp.sessions.expire()
        assert gone.view.appended == written, "it was declared gone, and does not know"
        await asyncio.gather(
            made.nodes["a"].engine.mcp.sessions.expire(), made.nodes["c"].engine.mcp.sessions.expire()
        )
        await made.until(lambda: count(made, "mcpSessionEvents", "EXPIRED") >= 12)
        gone.is_paused = False
        made.deliver()
        await made.beat()
        assert count(made, "mcpSessionEvents", "EXPIRED") == 12


async def test_what_is_due_is_charged_once_by_whoever_owns_the_account() -> None:
    async with cluster("a", "b", "c") as made:
        for number in range(9):
            node = made.nodes["abc"[number % 3]]
            await node.engine.llm.complete(ask(user=f"user-{number % 4}"))
            made.deliver()
        await made.until(lambda: count(made, "costUpdates", "COST_INCURRED") >= 9)
        for _ in range(20):
            made.deliver()
            await asyncio.sleep(0)
        assert count(made, "costUpdates", "COST_INCURRED") == 9


async def test_a_node_stops_in_order_where_another_one_has_saved_a_newer_snapshot(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def refuse(offset: int, _: object) -> None:
        raise ValueError(f"the snapshot is at 4711: it does not go back to {offset}")

    async with cluster("a", "b") as made:
        await create_workflow(made.nodes["a"].engine.workflows)
        made.deliver()
        (keeper,) = [node for node in made.nodes.values() if node.engine.keeps_the_log]
        monkeypatch.setattr(keeper.view, "save_snapshot", refuse)
        await keeper.engine.aclose()
