"""API keys: how they are made and kept, which are taken, and how a running server learns of a revocation."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
import traceback
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from circuit_breaker_server import logs
from circuit_breaker_server.security.api_key_file import ApiKeyFile
from circuit_breaker_server.security.api_key_records import ApiKey, ApiKeyFileError, ApiKeyRefused, NoSuchKey
from circuit_breaker_server.security.api_keys import ApiKeys
from tests.server.tokens import NOW, SetClock

DAY = 86_400


def reason_for(keys: ApiKeys, text: str) -> str:
    with pytest.raises(ApiKeyRefused) as refused:
        keys.verify(text)
    # A shorter text may well be a word of the traceback.
    assert len(text) < 40 or text not in "".join(traceback.format_exception(refused.value))
    return str(refused.value)


def test_a_key_reads_as_documented_and_no_two_are_alike(tmp_path: Path) -> None:
    file = ApiKeyFile(tmp_path / "made" / "here")
    made = [file.create("user-7") for _ in range(20)]
    assert all(re.fullmatch(r"cbk_[a-z2-7]{12}_[A-Za-z0-9_-]{43}", one.text) for one in made)
    assert len({one.text[-43:] for one in made} | {one.key.id for one in made}) == 40
    assert file.list() == tuple(one.key for one in made)


def test_the_file_is_its_owners_and_holds_no_secret(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        made = ApiKeyFile(tmp_path).create("user-7", label="laptop")
    finally:
        os.umask(before)
    path = tmp_path / "api_keys.json"
    assert path.stat().st_mode & 0o777 == 0o600
    assert sorted(os.listdir(tmp_path)) == ["api_keys.json", "api_keys.json.lock"]
    (kept,) = json.loads(path.read_bytes())["keys"]
    assert (kept["principal"], kept["label"], kept["expires_at"], kept["revoked_at"]) == (
        *("user-7", "laptop"),
        *(None, None),
    )
    assert made.text[-43:] not in path.read_text()


async def test_a_key_is_taken_until_it_expires(tmp_path: Path) -> None:
    clock = SetClock()
    made = ApiKeyFile(tmp_path, clock=clock).create("user-7", expires_in_seconds=DAY)
    keys = await ApiKeys.open(tmp_path, clock=clock)
    assert made.key.created_at == NOW
    assert made.key.expires_at == NOW + DAY
    assert keys.verify(made.text) == made.key
    clock.set(NOW + DAY - 1)
    assert keys.verify(made.text).principal == "user-7"
    clock.set(NOW + DAY)
    assert reason_for(keys, made.text) == "key expired"
    assert reason_for(keys, made.text[:-5] + "AAAAA") == "key invalid"
    await keys.aclose()


async def test_what_is_no_key_or_not_quite_is_refused_as_invalid(tmp_path: Path) -> None:
    file = ApiKeyFile(tmp_path)
    one, other = file.create("user-7").text, file.create("user-8").text
    keys = await ApiKeys.open(tmp_path)
    changed = one[:-1] + ("A" if one[-1] != "A" else "B")
    for text in (
        *("", "cbk_", one[:-1], one + "A", one + "\n", " " + one[1:], one.upper(), changed),
        *(
            one[:17] + other[17:],
            "cbk_" + "a" * 12 + one[16:],
            one.replace("cbk_", "cbx_"),
            "é" * 60,
            "\0" * 60,
        ),
        *("x" * 10_000_000, one[:20] + "\ud800" + one[21:]),
    ):
        assert reason_for(keys, text) == "key invalid"
    await keys.aclose()


@given(st.text(max_size=70) | st.from_regex(r"cbk_[a-z2-7]{12}_[A-Za-z0-9_-]{43}", fullmatch=True))
def test_no_text_but_a_key_is_taken(text: str) -> None:
    assert reason_for(ApiKeys(), text) == "key invalid"


async def test_without_a_file_there_are_no_keys_until_one_is_made(tmp_path: Path) -> None:
    keys = await ApiKeys.open(tmp_path / "later")
    await keys.check_now()
    made = ApiKeyFile(tmp_path / "later").create("user-7")
    await keys.check_now()
    assert keys.verify(made.text) == made.key
    await keys.aclose()


async def test_a_revoked_key_is_refused_and_told_once(tmp_path: Path) -> None:
    clock = SetClock()
    file = ApiKeyFile(tmp_path, clock=clock)
    one, other = file.create("user-7"), file.create("user-8")
    told: list[ApiKey] = []
    keys = await ApiKeys.open(tmp_path, told.append)
    clock.set(NOW + 5)
    revoked = file.revoke(one.key.id)
    assert revoked.revoked_at == NOW + 5
    clock.set(NOW + 9)
    assert file.revoke(one.key.id) == revoked
    await keys.check_now()
    await keys.check_now()
    assert told == [one.key]
    assert reason_for(keys, one.text) == "key revoked"
    assert keys.verify(other.text) == other.key
    await keys.aclose()


async def test_a_revocation_is_seen_by_the_watch_itself(tmp_path: Path) -> None:
    file = ApiKeyFile(tmp_path)
    made = file.create("user-7")
    told = asyncio.Event()
    keys = await ApiKeys.open(tmp_path, lambda _: told.set())
    file.revoke(made.key.id)
    async with asyncio.timeout(30):
        await told.wait()
    await keys.aclose()


async def test_a_key_that_is_gone_or_somebody_elses_counts_as_revoked(tmp_path: Path) -> None:
    file = ApiKeyFile(tmp_path)
    gone, given, relabelled = (file.create(who, label="a") for who in ("gone", "given", "same"))
    told: list[ApiKey] = []
    keys = await ApiKeys.open(tmp_path)
    stop = keys.on_revoked(told.append)
    path = tmp_path / "api_keys.json"
    contents = json.loads(path.read_bytes())
    contents["keys"] = contents["keys"][1:]
    contents["keys"][0]["principal"] = "taken"
    contents["keys"][1]["label"] = "b"
    path.write_text(json.dumps(contents))
    await keys.check_now()
    assert told == [gone.key, given.key]
    assert keys.verify(relabelled.text).label == "b"
    assert keys.verify(given.text).principal == "taken"
    stop()
    file.revoke(relabelled.key.id)
    await keys.check_now()
    assert len(told) == 2
    await keys.aclose()


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("{", "is no file of keys"),
        ('{"version": 2, "keys": []}', "is no file of keys"),
        ('{"version": 1, "keys": [], "more": 1}', "is no file of keys"),
        ('{"version": 1, "keys": [{"id": "x"}]}', "is no file of keys"),
        ("\udcff", "is no file of keys"),
    ],
)
async def test_a_broken_file_is_no_start_and_keeps_a_running_server_as_it_is(
    tmp_path: Path, content: str, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    made = ApiKeyFile(tmp_path).create("user-7")
    keys = await ApiKeys.open(tmp_path)
    (tmp_path / "api_keys.json").write_bytes(content.encode(errors="surrogateescape"))
    await keys.check_now()
    await keys.check_now()
    assert keys.verify(made.text) == made.key
    assert capsys.readouterr().err.count(says) == 1
    await keys.aclose()
    with pytest.raises(ApiKeyFileError, match=says):
        await ApiKeys.open(tmp_path)
    for use in (ApiKeyFile(tmp_path).list, lambda: ApiKeyFile(tmp_path).create("user-8")):
        with pytest.raises(ApiKeyFileError, match=says):
            use()
    assert (tmp_path / "api_keys.json").read_bytes() == content.encode(errors="surrogateescape")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"id": "TOO-LOUD"}, "id, sha256 or principal"),
        ({"sha256": "00"}, "id, sha256 or principal"),
        ({"principal": ""}, "id, sha256 or principal"),
        ({"created_at": 1e300}, "times is none"),
        ({"revoked_at": -1}, "times is none"),
    ],
)
def test_a_key_in_the_file_that_can_be_none_is_named_by_its_place(
    tmp_path: Path, change: dict[str, object], says: str
) -> None:
    file = ApiKeyFile(tmp_path)
    file.create("user-7")
    path = tmp_path / "api_keys.json"
    contents = json.loads(path.read_bytes())
    path.write_text(json.dumps({"keys": [{**contents["keys"][0], **change}]}))
    with pytest.raises(ApiKeyFileError, match=rf"api_keys\.json: keys\[0\]: .*{says}"):
        file.list()
    path.write_text(json.dumps({"keys": contents["keys"] * 2}))
    with pytest.raises(ApiKeyFileError, match=r"keys\[1\]: its id is there twice"):
        file.list()


def test_an_id_that_is_not_there_is_not_repeated(tmp_path: Path) -> None:
    for directory in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(NoSuchKey) as refused:
            ApiKeyFile(directory).revoke("cbk_whole_key")
        assert "cbk_whole_key" not in str(refused.value)
    assert not (tmp_path / "nowhere").exists()
    assert ApiKeyFile(tmp_path / "nowhere").list() == ()


@pytest.mark.parametrize(
    ("principal", "label", "seconds"),
    [("", "", None), ("x" * 256, "", None), ("\ud800", "", None), ("x", "y" * 256, None)]
    + [("x", "", seconds) for seconds in (0, -1, float("nan"), float("inf"))],
)
def test_a_key_without_sense_is_not_made(
    tmp_path: Path, principal: str, label: str, seconds: float | None
) -> None:
    with pytest.raises(ValueError, match=r"a principal|a label|the time"):
        ApiKeyFile(tmp_path).create(principal, label=label, expires_in_seconds=seconds)
    assert os.listdir(tmp_path) == []


def test_writers_at_the_same_time_lose_no_key(tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path\n"
        "from circuit_breaker_server.security.api_key_file import ApiKeyFile\n"
        "for n in range(10): ApiKeyFile(Path(sys.argv[1])).create('user')"
    )
    writers = [subprocess.Popen([sys.executable, "-c", script, str(tmp_path)]) for _ in range(2)]
    assert [writer.wait(timeout=50) for writer in writers] == [0, 0]
    assert len(ApiKeyFile(tmp_path).list()) == 20


def test_what_a_killed_writer_left_behind_is_in_nobodys_way(tmp_path: Path) -> None:
    (tmp_path / "api_keys.json.new").write_text("half")
    made = ApiKeyFile(tmp_path).create("user-7")
    assert ApiKeyFile(tmp_path).list() == (made.key,)


def test_a_write_that_fails_keeps_the_file_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = ApiKeyFile(tmp_path)
    made = file.create("user-7")

    def fail(_: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        with pytest.raises(ApiKeyFileError, match=r"api_keys\.json: cannot be written \(No space left"):
            file.create("user-8")
    assert file.list() == (made.key,)
    assert sorted(os.listdir(tmp_path)) == ["api_keys.json", "api_keys.json.lock"]


async def test_the_text_of_a_key_is_in_no_repr_log_or_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    logs.configure("debug")
    file = ApiKeyFile(tmp_path)
    made = file.create("user-7")
    keys = await ApiKeys.open(tmp_path)
    keys.verify(made.text)
    file.revoke(made.key.id)
    await keys.check_now()
    assert reason_for(keys, made.text) == "key revoked"
    shown = "".join(map(repr, (made, made.key, keys, file, file.list()))) + str(made)
    written = capsys.readouterr()
    assert "key_revoked" in written.err
    for text in (shown, written.err, written.out):
        assert made.text[-43:] not in text
        assert made.key.sha256 not in text
    await keys.aclose()
