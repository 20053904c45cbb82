"""The log's format: nodes of two versions on one log, and what raises the format."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

import msgspec
import pytest

from circuit_breaker_server.engine.engine import Engine
from circuit_breaker_server.engine.errors import EngineError, ErrorCode
from circuit_breaker_server.engine.nodes.membership import GONE_AFTER
from circuit_breaker_server.engine.nodes.nodes import Nodes
from circuit_breaker_server.engine.nodes.records import FORMAT_SUBJECT
from circuit_breaker_server.engine.record_versions import DOWNCASTERS
from circuit_breaker_server.engine.skipped_records import CannotSkip, skip
from circuit_breaker_server.engine.state_projector import RecordNotApplied
from circuit_breaker_server.engine.workflows.inputs import CreateResource
from circuit_breaker_server.log.event_log import LogCorruptError, Snapshot
from tests.server.engine.memory_log import MemoryLog
from tests.server.engine.shared.nodes import Cluster, Node, cluster
from tests.server.engine.version_steps import ADDED, NEW, OLD, put_steps
from tests.server.engine.worlds import create_resource, create_workflow, state_input


@pytest.fixture(autouse=True)
def _steps(monkeypatch: pytest.MonkeyPatch) -> None:
    put_steps(monkeypatch)


@contextlib.asynccontextmanager
async def mixed() -> AsyncIterator[Cluster]:
    """Run node a with the old program, and b with the new one."""
    async with cluster() as made:
        await made.start("a", reads=OLD)
        await made.start("b")
        yield made


async def stop(made: Cluster, name: str) -> None:
    await made.nodes.pop(name).engine.aclose()
    made.deliver()


@contextlib.asynccontextmanager
async def replaced() -> AsyncIterator[Cluster]:
    """Run nodes b and c with the new program on a log that an old one has begun."""
    async with mixed() as made:
        await stop(made, "a")
        await made.start("c")
        yield made


def versions(log: MemoryLog) -> list[object]:
    return [msgspec.json.decode(record.data, type=dict[str, object])["v"] for record in log.records]


def changes(log: MemoryLog) -> int:
    return sum(record.subject == FORMAT_SUBJECT for record in log.records)


async def raise_format(made: Cluster, name: str) -> bool:
    raised = await made.nodes[name].engine.nodes.raise_format()
    made.deliver()
    return raised


async def create_state(node: Node, workflow: str) -> None:
    await node.engine.workflows.create_state(state_input(workflow, "archived"))


# --- nodes of two versions -----------------------------------------------------------------------------


async def test_a_newer_node_writes_what_the_older_one_reads() -> None:
    async with mixed() as made:
        a, b = made.nodes["a"], made.nodes["b"]
        resource = await create_resource(b.engine.workflows, await create_workflow(b.engine.workflows))
        made.deliver()
        assert set(versions(made.log)) == {OLD}
        assert ADDED not in msgspec.json.decode(made.log.records[-1].data, type=dict[str, object])
        assert a.engine.failure is None
        assert a.engine.workflows.view(resource) == b.engine.workflows.view(resource)
        assert a.engine.nodes.format == b.engine.nodes.format == OLD
        assert {each.name: each.reads for each in a.engine.nodes.all()} == {"a": OLD, "b": NEW}


async def test_what_the_format_cannot_hold_is_refused_and_nothing_is_written() -> None:
    async with mixed() as made:
        b = made.nodes["b"]
        workflow = await create_workflow(b.engine.workflows)
        written = len(made.log.records)
        given = CreateResource(workflow_id=workflow, data={})
        by_ada = b.engine.workflows.create_resource(given, triggered_by="ada")
        for refused in (create_state(b, workflow), by_ada):
            with pytest.raises(EngineError, match="nodes URL --raise-format") as raised:
                await refused
            assert raised.value.code is ErrorCode.INVALID_INPUT
        assert len(made.log.records) == written
        assert b.engine.failure is None


async def test_the_format_is_raised_once_all_nodes_read_it_and_then_everything_is_written() -> None:
    async with mixed() as made:
        workflow = await create_workflow(made.nodes["b"].engine.workflows)
        made.deliver()
        with pytest.raises(EngineError, match=rf"not every node reads {NEW}: a \(reads {OLD}\)") as raised:
            await raise_format(made, "b")
        assert raised.value.facts == {"nodes": ["a"]}
        assert changes(made.log) == 0
        await stop(made, "a")
        await made.start("a")
        assert await raise_format(made, "b")
        assert not await raise_format(made, "a")
        assert changes(made.log) == 1
        await create_state(made.nodes["a"], workflow)
        made.deliver()
        assert versions(made.log)[-1] == NEW
        for node in made.nodes.values():
            assert node.engine.failure is None
            assert node.engine.nodes.format == NEW


async def test_an_older_node_that_left_or_was_declared_gone_does_not_hold_the_format_back() -> None:
    async with mixed() as made:
        a = made.nodes["a"]
        a.is_paused = True
        await made.beat(GONE_AFTER + 2)
        assert await raise_format(made, "b")
        workflow = await create_workflow(made.nodes["b"].engine.workflows)
        await create_state(made.nodes["b"], workflow)
        a.is_paused = False
        made.deliver()
        assert f"written in format {NEW}, and this program reads up to {OLD}" in str(a.engine.failure)
        assert "log skip" not in str(a.engine.failure)
        assert made.nodes["b"].engine.failure is None


async def test_a_newer_record_stops_the_node_that_does_not_read_it_and_no_other() -> None:
    async with mixed() as made:
        a, b = made.nodes["a"], made.nodes["b"]
        b.engine._folding.state._parts[0].format = NEW  # type: ignore[attr-defined]  # as a defect would
        await create_workflow(b.engine.workflows)
        made.deliver()
        assert f"has version {NEW}, this program reads up to {OLD}; run the newer" in str(a.engine.failure)
        assert b.engine.failure is None
        await create_workflow(b.engine.workflows)


async def test_a_program_that_does_not_read_the_format_does_not_start() -> None:
    async with replaced() as made:
        await raise_format(made, "b")
        old = Node("old", made, reads=OLD)
        with pytest.raises(
            RecordNotApplied, match=f"format {NEW}, and this program reads up to {OLD}: start"
        ):
            await old.start()
        await old.engine.aclose()
        made.deliver()
        assert all(node.engine.failure is None for node in made.nodes.values())
        assert "old" not in {each.name for each in made.nodes["b"].engine.nodes.all()}


async def test_a_program_that_cannot_write_the_format_does_not_join(monkeypatch: pytest.MonkeyPatch) -> None:
    async with mixed() as made:
        monkeypatch.delitem(DOWNCASTERS, NEW)
        late = Node("late", made)
        with pytest.raises(EngineError, match="upgrade all nodes to a release in between first"):
            await late.start()
        await late.engine.aclose()


# --- the command and a node that joins at once ---------------------------------------------------------


async def test_a_node_that_joins_before_the_command_is_seen_by_it() -> None:
    async with replaced() as made:
        b = made.nodes["b"]
        late = made.nodes["late"] = Node("late", made, reads=OLD)
        await late.start()
        assert "late" not in b.engine.nodes.others(), "its record has not reached the node that is asked"
        with pytest.raises(EngineError, match=rf"late \(reads {OLD}\)"):
            await b.engine.nodes.raise_format()
        made.deliver()
        assert b.engine.nodes.format == OLD


async def test_a_node_that_joins_behind_the_command_does_not_start() -> None:
    async with replaced() as made:
        late = Node("late", made, reads=OLD)

        async def raise_meanwhile() -> None:
            late.view.pause = made.nodes["b"].view.pause
            await made.nodes["b"].engine.nodes.raise_format()

        late.view.pause = raise_meanwhile
        with pytest.raises(RecordNotApplied, match=f"written in format {NEW}"):
            await late.start()
        await late.engine.aclose()
        made.deliver()
        assert made.nodes["c"].engine.nodes.format == NEW
        assert "late" not in made.nodes["c"].engine.nodes.others()


async def test_two_commands_at_once_raise_the_format_once() -> None:
    async with replaced() as made:
        b, c = made.nodes["b"], made.nodes["c"]

        async def other_first() -> None:
            b.view.pause = c.view.pause
            assert await c.engine.nodes.raise_format()

        b.view.pause = other_first
        assert not await b.engine.nodes.raise_format()
        assert changes(made.log) == 1


# --- the saved state, and a server that is alone -------------------------------------------------------


async def test_the_older_nodes_save_the_state_until_the_format_is_raised() -> None:
    async with mixed() as made:
        a, b = made.nodes["a"], made.nodes["b"]
        assert (a.engine.keeps_the_log, b.engine.keeps_the_log) == (True, False)
        await stop(made, "a")
        assert not b.engine.keeps_the_log, "an older program may still come back"
        await raise_format(made, "b")
        assert b.engine.keeps_the_log


async def _nothing(_: Nodes) -> None:
    """Do not leave: a node that is killed says nothing."""


async def alone(log: MemoryLog, *, reads: int = NEW) -> Engine:
    engine = Engine(log, reads=reads)
    await engine.start()
    return engine


async def test_a_server_that_is_alone_raises_the_format_by_itself() -> None:
    log = MemoryLog()
    old = await alone(log, reads=OLD)
    workflow = await create_workflow(old.workflows)
    await old.aclose()
    new = await alone(log)
    assert new.nodes.format == NEW
    await new.workflows.create_state(state_input(workflow, "archived"))
    await new.aclose()
    assert versions(log) == [OLD, OLD, NEW]
    assert log.snapshot.offset == 3, "the format is in the saved state"
    again = await alone(log)
    assert again.nodes.format == NEW
    await again.aclose()
    assert changes(log) == 1
    with pytest.raises(RecordNotApplied, match=f"format {NEW}, and this program reads up to {OLD}: start"):
        await alone(log, reads=OLD)


async def test_a_server_that_is_alone_does_not_ask_nodes_that_were_killed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    log = MemoryLog()
    worker = Engine(log, reads=OLD, node="main-1", address="http://main-1")
    await worker.start()
    with monkeypatch.context() as killed:
        killed.setattr(Nodes, "leave", _nothing)
        await worker.aclose()
    again = await alone(log)
    assert again.nodes.format == NEW
    await again.aclose()


async def test_a_saved_state_of_a_newer_format_is_named_before_what_else_is_unknown_in_it() -> None:
    log = MemoryLog()
    await (await alone(log, reads=OLD)).aclose()
    await (await alone(log)).aclose()
    entries = {"unknown/x": b"{}", **log.snapshot.entries}
    log.snapshot = Snapshot(offset=log.snapshot.offset, entries=entries)
    with pytest.raises(RecordNotApplied, match=f"written in format {NEW}"):
        await alone(log, reads=OLD)
    with pytest.raises(
        LogCorruptError, match="snapshot entry unknown/x is of a kind that this program does not"
    ):
        await alone(log)


async def test_the_first_node_of_a_new_log_begins_in_the_newest_format() -> None:
    async with cluster("a", "b") as made:
        assert changes(made.log) == 1
        assert made.nodes["b"].engine.nodes.format == NEW
        await create_state(made.nodes["b"], await create_workflow(made.nodes["b"].engine.workflows))


async def test_a_record_that_changes_the_format_cannot_be_skipped_and_a_skip_keeps_the_format() -> None:
    log = MemoryLog()
    for reads in (OLD, NEW):
        engine = await alone(log, reads=reads)
        await create_workflow(engine.workflows)
        await engine._folding.aclose(save=False)
        await engine.aclose()
        await skip(log, len(log.records), reason="r", operator="ada")
        assert versions(log)[-1] == reads
    with pytest.raises(CannotSkip, match="record 3 changes the log's format"):
        await skip(log, 3, reason="r", operator="ada")
