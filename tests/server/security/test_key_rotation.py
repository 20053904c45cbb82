"""New keys: secrets stay readable, cursors of before stay good for as long as was said, and no longer."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from cryptography.fernet import Fernet

from circuit_breaker_sdk import Client, Continuity, GapError
from circuit_breaker_sdk.cli.exit_codes import ExitCode
from circuit_breaker_server.engine.cursor import Cursor, Cursors
from circuit_breaker_server.security import key_rotation
from circuit_breaker_server.security.key_rotation import KeyRotationError, rotate_keys
from circuit_breaker_server.storage import secret_store
from circuit_breaker_server.storage.cursor_keys import CursorKeys, rotate_cursor_key
from circuit_breaker_server.storage.secret_store import KEY_VARIABLE, SecretStore, rotate_secret_key
from tests.cli.process import complain, running
from tests.integration.workflows import create_review_workflow, number_of
from tests.server.keyed_server import serving

EPOCH = "9f2c41d07be3a856"
CURSOR = Cursor(EPOCH, 7, 3, "7d3e9a10")


async def cursor_behind(client: Client, workflow: str, *numbers: int) -> str:
    updates = await client.workflows.subscribe_resource_updates(workflow_id=workflow).subscribe()
    for n in numbers:
        await client.workflows.create_resource(workflow_id=workflow, data={"n": n})
    for n in numbers:
        assert number_of(await anext(updates)) == n
    assert updates.cursor is not None
    return updates.cursor


async def test_subscribers_resume_across_a_rotation_and_another_one(tmp_path: Path) -> None:
    async with serving(tmp_path) as client:
        workflow = (await create_review_workflow(client)).id
        cursor = await cursor_behind(client, workflow, 1, 2)
    for turn in range(2):
        rotate_keys(tmp_path, cursors_for_seconds=3_600)
        async with serving(tmp_path) as client:
            updates = (
                await client.workflows.subscribe_resource_updates(workflow_id=workflow)
                .after(cursor)
                .subscribe()
            )
            seen = [await anext(updates)]
            await client.workflows.create_resource(workflow_id=workflow, data={"n": 3})
            while number_of(seen[-1]) != 3 or len(seen) < turn + 2:
                seen.append(await anext(updates))
            assert [number_of(each) for each in seen] == [2, *[3] * (turn + 1)]
            assert updates.cursor not in (None, cursor)
            assert updates.continuity is Continuity.OK


async def test_cursors_whose_time_is_over_are_no_cursors(tmp_path: Path) -> None:
    async with serving(tmp_path) as client:
        workflow = (await create_review_workflow(client)).id
        cursor = await cursor_behind(client, workflow, 1, 2)
    rotate_keys(tmp_path, cursors_for_seconds=0.001)
    async with serving(tmp_path) as client:
        with pytest.raises(GapError, match="malformed"):
            await anext(
                await client.workflows.subscribe_resource_updates(workflow_id=workflow)
                .after(cursor)
                .subscribe()
            )


def test_a_key_of_before_opens_until_its_time_and_seals_nothing() -> None:
    old, new, now = b"o" * 32, b"n" * 32, [100.0]
    sealed = Cursors(EPOCH, old).of(CURSOR)
    place = Cursors(EPOCH, old).seal_place(9)
    cursors = Cursors(EPOCH, new, [(old, 200.0)], clock=lambda: now[0])
    assert cursors.parse(sealed) == CURSOR
    assert cursors.open_place(place) == 9
    assert cursors.of(CURSOR) == Cursors(EPOCH, new).of(CURSOR) != sealed
    now[0] = 200.0
    for read in (lambda: cursors.parse(sealed), lambda: cursors.open_place(place)):
        with pytest.raises(ValueError, match="not a cursor of this server"):
            read()
    assert cursors.parse(cursors.of(CURSOR)) == CURSOR


def test_a_cursor_of_another_life_of_the_log_is_told_apart_with_any_key() -> None:
    sealed = Cursors("0123456789abcdef", b"x" * 32).of(CURSOR)
    found = Cursors(EPOCH, b"n" * 32, [(b"o" * 32, 1e12)]).parse(sealed)
    assert found.epoch == "0123456789abcdef"


def test_keys_of_before_are_forgotten_when_their_time_is_over(tmp_path: Path) -> None:
    first = CursorKeys.read(tmp_path).present
    rotate_cursor_key(tmp_path, valid_seconds=1e-9)
    second = CursorKeys.read(tmp_path)
    assert [each.key for each in second.previous] == [first]
    until = rotate_cursor_key(tmp_path, valid_seconds=60.0)
    third = CursorKeys.read(tmp_path)
    assert [(each.key, each.until) for each in third.previous] == [(second.present, until)]
    assert third.present not in (first, second.present)
    assert repr(third.present) not in repr(third)
    assert "key" not in repr(third.previous)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("cursors.key", b"short", r"cursors\.key: is no key, which has 32 bytes"),
        ("cursors.previous.json", b"{", r"cursors\.previous\.json: does not hold keys of before"),
    ],
)
def test_files_that_hold_no_keys_are_named(tmp_path: Path, name: str, text: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(text)
    with pytest.raises(ValueError, match=message):
        CursorKeys.read(tmp_path)


async def test_secrets_are_encrypted_anew(tmp_path: Path) -> None:
    store = await SecretStore.open(tmp_path, {})
    await store.put("a", "one")
    old = (tmp_path / "secrets.key").read_bytes()
    assert rotate_secret_key(tmp_path, {}) == 1
    new = (tmp_path / "secrets.key").read_bytes()
    assert new != old
    assert len(new) == len(old)
    assert (await SecretStore.open(tmp_path, {})).get("a") == "one"


async def test_a_crash_half_way_loses_no_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = await SecretStore.open(tmp_path, {})
    await store.put("a", "one")

    def crash(_path: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(secret_store, "_database", crash)
    with pytest.raises(KeyboardInterrupt):
        rotate_secret_key(tmp_path, {})
    monkeypatch.undo()
    store = await SecretStore.open(tmp_path, {})
    assert store.get("a") == "one"
    await store.put("b", "two")
    assert rotate_secret_key(tmp_path, {}) == 2
    store = await SecretStore.open(tmp_path, {})
    assert (store.get("a"), store.get("b")) == ("one", "two")


async def test_keys_of_the_environment_are_rotated_by_naming_both(tmp_path: Path) -> None:
    old, new = Fernet.generate_key().decode(), Fernet.generate_key().decode()
    store = await SecretStore.open(tmp_path, {KEY_VARIABLE: old})
    await store.put("a", "one")
    both = {KEY_VARIABLE: f"{new}, {old}"}
    assert (await SecretStore.open(tmp_path, both)).get("a") == "one"
    assert rotate_secret_key(tmp_path, both) == 1
    assert (await SecretStore.open(tmp_path, {KEY_VARIABLE: new})).get("a") == "one"
    assert not (tmp_path / "secrets.key").exists()


async def test_a_server_that_runs_keeps_its_keys(tmp_path: Path) -> None:
    async with serving(tmp_path):
        before = {path: path.read_bytes() for path in tmp_path.glob("*.key")}
        with pytest.raises(KeyRotationError, match="in use by another process"):
            rotate_keys(tmp_path, cursors_for_seconds=60)
        assert {path: path.read_bytes() for path in tmp_path.glob("*.key")} == before


def test_what_cannot_be_rotated_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(KeyRotationError, match="has no event log"):
        rotate_keys(tmp_path, cursors_for_seconds=60)
    (tmp_path / "events.db").touch()

    def refuse(_path: Path) -> int:
        raise PermissionError(13, "Permission denied", "secrets.key")

    monkeypatch.setattr(key_rotation, "rotate_secret_key", refuse)
    with pytest.raises(KeyRotationError, match=r"secrets\.key: Permission denied"):
        rotate_keys(tmp_path, cursors_for_seconds=60)


async def test_from_the_command_line(tmp_path: Path) -> None:
    async with serving(tmp_path / "data"):
        pass
    data = ("--data", str(tmp_path / "data"))
    with running("keys", "rotate", "--cursors-for", "1d", *data) as command:
        assert command.end() == ExitCode.OK
    (line,) = command.err
    assert line.startswith("rotated: 0 secrets encrypted anew; cursors of before are good until 20")
    keys = CursorKeys.read(tmp_path / "data")
    assert 86_000 < keys.previous[0].until - time.time() < 86_401
    status, line = complain("keys", "rotate", "--data", str(tmp_path))
    assert status == ExitCode.UNREACHABLE
    assert "has no event log" in line
