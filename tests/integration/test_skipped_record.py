"""A subscription behind a record that an operator had skipped is told of the gap; the others go on."""

from __future__ import annotations

from pathlib import Path

import pytest

from circuit_breaker_sdk import Client, GapError
from circuit_breaker_sdk.events import ActivityInput, StateInput
from circuit_breaker_server import RecordNotAppliedError, Server, ServerSettings
from circuit_breaker_server.engine.skipped_records import skip
from circuit_breaker_server.engine.workflows.subjects import resource_subject
from circuit_breaker_server.log.event_log import NewRecord
from circuit_breaker_server.log.sqlite import SqliteEventLog
from tests.server.engine.ghost_record import ghost


def server(data: Path) -> Server:
    return Server(ServerSettings(data_dir=data, port=0, log_level="critical"))


async def create_workflow(client: Client) -> str:
    made = await client.workflows.create_workflow(
        name="w",
        initial_state="a",
        states=[StateInput(id="a", name="A")],
        activities=[ActivityInput(id="go", from_states=["a"], to_state="a")],
    )
    return made.id


async def test_only_subscriptions_of_the_skipped_subject_have_a_gap_with_its_reason(tmp_path: Path) -> None:
    async with server(tmp_path) as first, Client(first.url) as client:
        made, second = [await create_workflow(client) for _ in range(2)]
        other = await client.workflows.subscribe_resource_updates(workflow_id=second).subscribe()
        ours = await client.workflows.subscribe_resource_updates(workflow_id=made).subscribe()
        before_other, before_ours = str(other.cursor), str(ours.cursor)
    log = await SqliteEventLog.open(tmp_path)
    broken = ghost()
    await log.append(NewRecord(subject=resource_subject(made, "r"), id=broken.id, data=broken.data))
    await log.aclose()
    with pytest.raises(RecordNotAppliedError):
        await server(tmp_path).start()
    log = await SqliteEventLog.open(tmp_path)
    await skip(log, log.last_offset, reason="a defect", operator="ada")
    await log.aclose()
    async with server(tmp_path) as again, Client(again.url) as client:
        updates_of = client.workflows.subscribe_resource_updates
        late = await updates_of(workflow_id=second).after(before_other).subscribe()
        assert late.continuity.value == "ok"
        with pytest.raises(GapError) as gap:
            await updates_of(workflow_id=made).after(before_ours).subscribe()
        assert gap.value.reason == "skipped"
        updates = await updates_of(workflow_id=made).subscribe()
        resource = await client.workflows.create_resource(workflow_id=made)
        assert (await anext(updates)).id == resource.id
