"""What people do at a whole server stands in its audit log, and nothing they must not lose."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from circuit_breaker_sdk import AuthenticationFailed, Client, SubscriptionFailed
from circuit_breaker_server import Server, ServerSettings
from circuit_breaker_server.security.audit import AuditPaths, AuditRecord, read, read_key, verify
from tests.policy_file import policy_of
from tests.server.access.office import open_office, settled
from tests.server.operations import CREATE_RESOURCE
from tests.server.tokens import token


def lines(data_dir: Path) -> list[AuditRecord]:
    paths = AuditPaths.of(data_dir)
    key = read_key(paths.key)
    assert verify(paths.log, key, paths.anchor).whole
    return [line.record for line in read(paths.log, key, paths.anchor)]  # type: ignore[union-attr]  # whole


async def test_who_did_what_and_was_refused_what_is_written_down(tmp_path: Path) -> None:
    async with open_office(tmp_path, ann=("acme", [])) as office:
        workflow, other = await office.workflow(), await office.workflow()
        office.policy.write_text(policy_of({"ann": ("acme", [f"workflow:read:{workflow}"])}))
        await settled(office, "ann", workflow)
        async with office.client("ann") as ann, office.client("boss") as boss:
            updates = await ann.workflows.subscribe_resource_updates().subscribe()
            for id_ in (other, workflow):
                await boss.workflows.create_resource(workflow_id=id_, data={"secret": "of the payload"})
            await anext(updates)
            with pytest.raises(SubscriptionFailed):
                await ann.workflows.subscribe_workflow_events(workflow_id=other).subscribe()
            given = {"workflowId": workflow, "data": {}, "metadata": {}}
            await office.ask("ann", CREATE_RESOURCE, input=given)
        async with Client(office.server.url, token=token(sub="eve", exp=time.time() - 600)) as eve:
            with pytest.raises(AuthenticationFailed):
                await eve.workflows.subscribe_resource_updates().subscribe()
        shown = office.token_of("ann")
    found = lines(tmp_path / "data")
    said = [(each.action, each.principal, each.what, each.decision, each.reason) for each in found]
    assert ("connect", "ann", "websocket", "allowed", None) in said
    assert ("subscribe", "ann", "resourceUpdates()", "allowed", None) in said
    assert ("subscribe", "ann", f"workflowEvents(workflowId: {other})", "refused", "NOT_FOUND") in said
    assert ("mutate", "ann", f"createResource(workflow {workflow})", "refused", "FORBIDDEN") in said
    assert ("mutate", "boss", f"createResource(workflow {workflow})", "allowed", None) in said
    assert ("refuse", "", "websocket", "refused", "token expired") in said
    assert any(each.action == "policy" and each.policy for each in found)
    (end,) = (each for each in found if each.action == "end" and each.what == "resourceUpdates()")
    assert (end.principal, end.count, end.tenant) == ("ann", 1, "acme")
    assert end.last_cursor is not None
    assert end.policy is not None
    assert {each.address for each in found if each.principal} == {"127.0.0.1"}
    text = AuditPaths.of(tmp_path / "data").log.read_text()
    assert "of the payload" not in text
    assert shown not in text
    assert shown.split(".")[1] not in text


async def test_an_open_server_keeps_no_audit_log(tmp_path: Path) -> None:

    async with Server(ServerSettings(data_dir=tmp_path / "data", port=0)):
        pass
    assert not (tmp_path / "data" / "audit").exists()
