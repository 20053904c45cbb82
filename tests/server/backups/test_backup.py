"""A backup that is made under load is put back: state, cursors, secrets and audit log belong together."""

from __future__ import annotations

import asyncio
import json
import shutil
import stat
from pathlib import Path

import pytest

from circuit_breaker_sdk import GapError
from circuit_breaker_sdk.cli.exit_codes import ExitCode
from circuit_breaker_server.backups import making
from circuit_breaker_server.backups.checking import check_backup
from circuit_breaker_server.backups.making import make_backup
from circuit_breaker_server.backups.manifest import BackupError, Manifest
from circuit_breaker_server.backups.restoring import restore_backup
from circuit_breaker_server.security.audit import AuditPaths
from circuit_breaker_server.security.audit.paths import read_key
from circuit_breaker_server.security.audit.verification import verify
from circuit_breaker_server.storage.secret_store import SecretStore
from tests.cli.process import complain, running
from tests.integration.workflows import create_review_workflow, number_of
from tests.server.keyed_server import serving
from tests.waiting import until


def audit_is_whole(data: Path) -> bool:
    paths = AuditPaths.of(data)
    found = verify(paths.log, read_key(paths.key, {}), paths.anchor)
    return found.whole


async def make(target: Path, data: Path) -> Manifest:
    return await asyncio.to_thread(make_backup, data, target)


async def test_a_backup_under_load_is_put_back(tmp_path: Path) -> None:
    data, target, restored = tmp_path / "data", tmp_path / "backup", tmp_path / "restored"
    async with serving(data) as client:
        workflow = (await create_review_workflow(client)).id
        updates = await client.workflows.subscribe_resource_updates(workflow_id=workflow).subscribe()
        made: list[int] = []
        is_over = asyncio.Event()

        async def create() -> None:
            while not is_over.is_set():
                await client.workflows.create_resource(workflow_id=workflow, data={"n": len(made)})
                made.append(len(made))

        creating = asyncio.create_task(create())
        for n in range(20):
            assert number_of(await anext(updates)) == n
        before = updates.cursor  # behind 18: the event that was asked for last is not handled yet
        manifest = await make(target, data)
        at_backup = len(made)
        # What comes behind the backup.
        await until(lambda: len(made) >= at_backup + 20)
        is_over.set()
        await creating
        n = 19
        while n < len(made) - 1:
            n = int(str(number_of(await anext(updates))))
        after = updates.cursor
    assert manifest == check_backup(target)
    assert 0 < manifest.log.records < len(made) + 2
    assert audit_is_whole(data)

    assert restore_backup(target, restored) == manifest
    assert stat.S_IMODE(restored.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in restored.rglob("*") if path.is_file()} == {0o600}
    async with serving(restored) as client:
        found = [number_of(each) for each in await client.workflows.all_resources(workflow_id=workflow)]
        assert found == list(range(manifest.log.last_offset - 1))
        # One who had not seen what the backup lacks resumes without a gap.
        assert before is not None
        old = (
            await client.workflows.subscribe_resource_updates(workflow_id=workflow).after(before).subscribe()
        )
        assert [number_of(await anext(old)) for _ in found[19:]] == found[19:]
        # One who had is told.
        assert after is not None
        with pytest.raises(GapError):
            await anext(
                await client.workflows.subscribe_resource_updates(workflow_id=workflow)
                .after(after)
                .subscribe()
            )
        await client.workflows.create_resource(workflow_id=workflow, data={"n": -1})
    assert audit_is_whole(restored)


async def test_a_secret_that_is_removed_meanwhile_is_in_the_backup(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, target = tmp_path / "data", tmp_path / "backup"
    async with serving(data):
        pass
    store = await SecretStore.open(data, {})
    await store.put("kept", "1")
    await store.put("removed", "2")
    copy = making._copy_database

    def copy_and_remove(source: Path, to: Path) -> None:
        copy(source, to)
        if source.name == "events.db":
            asyncio.run(store.remove("removed"))
            asyncio.run(store.put("new", "3"))

    monkeypatch.setattr(making, "_copy_database", copy_and_remove)
    await make(target, data)
    found = await SecretStore.open(target, {})
    assert {id_: found.get(id_) for id_ in found.ids()} == {"kept": "1", "removed": "2", "new": "3"}


async def test_records_that_go_while_it_copies_do_not_go_without_their_audit_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, target = tmp_path / "data", tmp_path / "backup"
    async with serving(data) as client:
        workflow = (await create_review_workflow(client)).id
        for n in range(30):
            await client.workflows.create_resource(workflow_id=workflow, data={"n": n})
    first_copy = shutil.copytree(data / "audit", tmp_path / "audit-before")
    lines = (first_copy / "audit.jsonl").read_bytes().splitlines(keepends=True)
    copy_audit, copied = making._copy_audit, []

    def late(source: Path, to: Path, anchor: Path, anchor_copy: Path) -> int | None:
        offset = copy_audit(source, to, anchor, anchor_copy)
        copied.append(offset)
        # As if it had been copied before the last lines were written.
        return 3 if len(copied) == 1 else offset

    monkeypatch.setattr(making, "_copy_audit", late)
    monkeypatch.setattr(making, "_trimmed", lambda _path: 10)
    await make(target, data)
    assert len(copied) == 2
    assert copied[1] is not None
    assert copied[1] >= 10
    monkeypatch.setattr(making, "_copy_audit", lambda *_: 3)
    with pytest.raises(BackupError, match="records were removed from the event log while it was copied"):
        await make(tmp_path / "other", data)
    assert lines


async def test_a_line_that_is_being_written_is_cut(tmp_path: Path) -> None:
    data, target = tmp_path / "data", tmp_path / "backup"
    async with serving(data) as client:
        await create_review_workflow(client)
    with (data / "audit" / "audit.jsonl").open("ab") as file:
        file.write(b'{"half a l')
    await make(target, data)
    assert (target / "audit" / "audit.jsonl").read_bytes().endswith(b"\n")
    restore_backup(target, tmp_path / "restored")
    assert audit_is_whole(tmp_path / "restored")


async def backup_of_something(tmp_path: Path) -> Path:
    async with serving(tmp_path / "data") as client:
        workflow = (await create_review_workflow(client)).id
        await client.workflows.create_resource(workflow_id=workflow, data={"n": 1})
    await make(tmp_path / "backup", tmp_path / "data")
    return tmp_path / "backup"


async def test_damage_to_any_file_is_found_and_nothing_is_put_back(tmp_path: Path) -> None:
    backup = await backup_of_something(tmp_path)
    names = [*Manifest.read(backup).files]
    assert set(names) >= {
        "events.db",
        "secrets.db",
        "audit.key",
        "cursors.key",
        "audit/audit.jsonl",
        "audit-anchor",
    }
    for name in names:
        path = backup / name
        whole = path.read_bytes()
        path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]) if whole else b"x")
        with pytest.raises(BackupError, match=r"is not as it was written; the backup is damaged"):
            restore_backup(backup, tmp_path / "restored")
        path.unlink()
        with pytest.raises(BackupError, match=r"No such file or directory; the backup is not whole"):
            restore_backup(backup, tmp_path / "restored")
        path.write_bytes(whole)
    assert not (tmp_path / "restored").exists()
    assert not (tmp_path / "restored.audit-anchor").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"{", "is not what a backup has"),
        (b"{}", "is not what a backup has"),
        (None, "name the directory of a whole backup"),
        ({"format": 2}, "has format 2, this version reads format 1"),
        ({"files": {"../x": {"size_bytes": 1, "sha256": ""}}}, "names files that are not in the backup"),
        ({"files": {"/etc/x": {"size_bytes": 1, "sha256": ""}}}, "names files that are not in the backup"),
        (
            {"log": {"epoch": "", "first_offset": 1, "last_offset": 9, "records": 9, "digest": ""}},
            "has other records",
        ),
    ],
)
async def test_a_manifest_that_is_wrong_is_refused(
    tmp_path: Path, text: bytes | dict[str, object] | None, message: str
) -> None:
    backup = await backup_of_something(tmp_path)
    manifest = backup / "backup.json"
    if text is None:
        manifest.unlink()
    else:
        changed = (
            text if isinstance(text, bytes) else json.dumps(json.loads(manifest.read_bytes()) | text).encode()
        )
        manifest.write_bytes(changed)
    with pytest.raises(BackupError, match=message):
        restore_backup(backup, tmp_path / "restored")


async def test_nothing_that_is_there_is_replaced(tmp_path: Path) -> None:
    backup = await backup_of_something(tmp_path)
    with pytest.raises(BackupError, match="is there already; name a directory that is not"):
        make_backup(tmp_path / "data", backup)
    with pytest.raises(BackupError, match="is there already, and a backup replaces nothing"):
        restore_backup(backup, tmp_path / "data")
    (tmp_path / "empty").mkdir()
    restore_backup(backup, tmp_path / "empty")
    assert (tmp_path / "empty" / "events.db").exists()
    with pytest.raises(BackupError, match="has no event log"):
        make_backup(tmp_path, tmp_path / "other")


async def test_from_the_command_line(tmp_path: Path) -> None:
    async with serving(tmp_path / "data") as client:
        workflow = (await create_review_workflow(client)).id
        await client.workflows.create_resource(workflow_id=workflow)

        def run(*arguments: str) -> list[str]:
            with running(*arguments) as command:
                assert command.end() == ExitCode.OK, command.err
                return command.out

        backup, data = tmp_path / "backup", ("--data", str(tmp_path / "data"))
        (line,) = await asyncio.to_thread(run, "backup", str(backup), *data)
    assert line.startswith("backed up: 2 records (offsets 1 to 2), ")
    assert line.endswith(" MiB; read back and whole")
    (line,) = await asyncio.to_thread(run, "restore", str(backup), "--data", str(tmp_path / "other"))
    assert line.startswith("restored: 2 records")
    status, error = complain("restore", str(backup), *data)
    assert status == ExitCode.UNREACHABLE
    assert "move it away" in error
