"""The fold: the same state however it is reached, and snapshots that stay small."""

from __future__ import annotations

import msgspec
import pytest

from circuit_breaker_server.engine.workflows.inputs import StateUpdate
from circuit_breaker_server.engine.workflows.state import (
    CHUNK_ENTRIES,
    SNAPSHOT_UPCASTERS,
    SNAPSHOT_VERSION,
    FoldedState,
)
from circuit_breaker_server.engine.workflows.workflows import Workflows
from circuit_breaker_server.log.event_log import LogCorruptError, Record, Snapshot, SnapshotEntry
from tests.server.engine.memory_log import MemoryLog
from tests.server.engine.worlds import (
    create_resource,
    create_workflow,
    everything,
    execute,
    part,
    plain,
    running,
    state_input,
)


def merged(entries: dict[str, bytes], changes: list[SnapshotEntry]) -> dict[str, bytes]:
    return entries | {entry.key: entry.data for entry in changes if entry.data is not None}


def answers(state: FoldedState) -> list[object]:
    """Return all that a state holds, in its order."""
    resources = [state.resource(id_) for id_ in state.resource_ids()]
    workflows = [state.workflow(id_) for id_ in state.workflow_ids()]
    return [
        [(w.value(), w.created, w.last) for w in workflows if w is not None],
        [(msgspec.json.encode(r), list(map(bytes, state.history(r)))) for r in resources if r is not None],
        [state.resource_ids(id_) for id_ in state.workflow_ids()],
        state.applied,
    ]


async def busy(engine: Workflows, *, edits: int) -> None:
    """Make workflows, resources in turns, a long history, changes of states."""
    one, two = await create_workflow(engine), await create_workflow(engine)
    resources = [await create_resource(engine, w, data={"title": "t"}) for w in (two, one, two, one)]
    await engine.create_state(state_input(one, "archived"))
    for i in range(edits):
        await execute(engine, resources[0], "edit", {"i": i, "text": "x" * (5_000 if i == 3 else i)})
    await execute(engine, resources[1], "submit")
    await engine.update_state(two, "review", StateUpdate(name="Reading"))
    await execute(engine, resources[2], "submit", {"by": "ada"})
    await execute(engine, resources[2], "approve")


async def recorded(edits: int = 3 * CHUNK_ENTRIES + 5) -> list[Record]:
    log = MemoryLog()
    async with running(log) as engine:
        await busy(engine, edits=edits)
    return log.records


async def test_a_snapshot_at_any_record_and_the_records_after_it_give_the_same_state() -> None:
    records = await recorded()
    whole = FoldedState()
    for record in records:
        whole.apply(record)
    expected = answers(whole)
    for at in [0, 1, 3, 7, *range(10, len(records), 17), len(records)]:
        first = FoldedState()
        for record in records[:at]:
            first.apply(record)
        offset, changes = first.take_changes()
        second = FoldedState()
        second.restore(Snapshot(offset=offset, entries=merged({}, changes)))
        for record in records[at:]:
            second.apply(record)
        assert answers(second) == expected, at


async def test_snapshots_saved_piece_by_piece_add_up_whatever_order_the_entries_come_back_in() -> None:
    records = await recorded()
    for step in (1, 7, 64, 100):
        state, entries = FoldedState(), dict[str, bytes]()
        for i, record in enumerate(records):
            state.apply(record)
            if i % step == 0:
                _, changes = state.take_changes()
                if i % (2 * step) == 0:
                    state.give_back(changes)  # it could not be saved
                else:
                    entries = merged(entries, changes)
        offset, changes = state.take_changes()
        entries = merged(entries, changes)
        backwards = dict(reversed(entries.items()))
        restored = FoldedState()
        restored.restore(Snapshot(offset=offset, entries=backwards))
        assert answers(restored) == answers(state)


async def test_what_is_given_back_does_not_replace_what_changed_since() -> None:
    records = await recorded(edits=2)
    state = FoldedState()
    for record in records[:5]:
        state.apply(record)
    _, failed = state.take_changes()
    for record in records[5:]:
        state.apply(record)
    state.give_back(failed)
    offset, changes = state.take_changes()
    restored = FoldedState()
    restored.restore(Snapshot(offset=offset, entries=merged({}, changes)))
    assert answers(restored) == answers(state)


async def test_a_snapshot_saves_only_what_changed_and_a_long_history_costs_no_more() -> None:
    log = MemoryLog()
    sizes = []
    async with running(log) as engine:
        resource = await create_resource(engine, await create_workflow(engine))
        state = engine._state
        for _ in range(6 * CHUNK_ENTRIES):
            await execute(engine, resource, "edit", {"n": 1})
            _, changes = state.take_changes()
            sizes.append(sum(len(entry.data or b"") for entry in changes))
            assert len(changes) <= 3
    assert max(sizes[3 * CHUNK_ENTRIES :]) <= max(sizes[: 3 * CHUNK_ENTRIES]) + 100


async def test_resources_and_workflows_come_in_the_order_of_their_creation_after_a_restart_too() -> None:
    log = MemoryLog()
    async with running(log) as engine:
        await busy(engine, edits=3)
        before = everything(engine)
    assert log.snapshot.offset == log.last_offset
    async with running(log) as engine:
        assert everything(engine) == before


async def test_an_older_entry_of_a_snapshot_is_brought_up_to_date(monkeypatch: pytest.MonkeyPatch) -> None:
    log = MemoryLog()
    async with running(log) as engine:
        resource = await create_resource(engine, await create_workflow(engine), data={"a": 1})
    old: dict[str, bytes] = {}
    for key, data in log.snapshot.entries.items():
        entry = msgspec.json.decode(data, type=list[object])
        old[key] = msgspec.json.encode([SNAPSHOT_VERSION - 1, "something gone", *entry[1:]])
    for kind in ("r", "w"):
        monkeypatch.setitem(SNAPSHOT_UPCASTERS, (kind, SNAPSHOT_VERSION - 1), lambda e: [e[0], *e[2:]])
    log.snapshot = Snapshot(offset=log.snapshot.offset, entries=old)
    async with running(log) as engine:
        assert part(plain(engine.resource(resource)), "data", dict) == {"a": 1}


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b'[99,"w"]', "has version 99, this program reads up to"),
        (b'["x"]', "has version x"),
        (b"[]", "cannot be read"),
        (b"{}", "cannot be read"),
        (b"\x00", "cannot be read"),
        (b'[-1,"w"]', "cannot be read"),
    ],
)
def test_an_entry_that_cannot_be_read_is_named_with_the_reason(data: bytes, says: str) -> None:
    key = "w/0000000000000001/w1"
    with pytest.raises(LogCorruptError) as raised:
        FoldedState().restore(Snapshot(offset=1, entries={key: data}))
    assert says in str(raised.value)
    assert key in str(raised.value)


async def test_a_record_that_changes_what_no_record_created_is_refused() -> None:
    records = await recorded(edits=1)
    strays = [r for r in records if b"_created" not in r.data[:30] or b"state_created" in r.data[:30]]
    assert len({bytes(r.data[:20]) for r in strays}) == 3
    for stray in strays:
        with pytest.raises(LogCorruptError, match="that no record created"):
            FoldedState().apply(stray)
