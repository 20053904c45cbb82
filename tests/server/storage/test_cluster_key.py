"""The cluster key: what is read from its file, what comes from it, and what a server makes of it."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from circuit_breaker_server import ClusterSettings, Server, ServerSettings, ServerStartError
from circuit_breaker_server.engine.cursor import Cursor, Cursors
from circuit_breaker_server.security.key_rotation import rotate_keys
from circuit_breaker_server.storage.cluster_key import ClusterKey, ClusterKeyError
from circuit_breaker_server.storage.cursor_keys import CursorKeys
from circuit_breaker_server.storage.secret_store import SecretStore, SecretStoreError

RAW = bytes(range(32))
CURSOR = Cursor("9f2c41d07be3a856", 7, 3, "7d3e9a10")


def key_file(directory: Path, content: bytes = RAW, mode: int = 0o600) -> Path:
    path = directory / "cluster.key"
    path.touch(0o600)
    path.write_bytes(content)
    path.chmod(mode)
    return path


@pytest.mark.parametrize("content", [RAW, RAW.hex().encode(), RAW.hex().upper().encode() + b"\r\n"])
def test_a_key_is_bytes_or_hexadecimal_digits(tmp_path: Path, content: bytes) -> None:
    assert ClusterKey.read(key_file(tmp_path, content)).cursor_key == ClusterKey(RAW).cursor_key


def test_each_use_has_a_key_of_its_own_that_stays_the_same() -> None:
    key = ClusterKey(RAW)
    ((secret_key,), (bucket_key,)) = key.secret_keys, key.bucket_keys
    assert len({RAW, key.cursor_key, secret_key, bucket_key}) == 4
    # Other nodes, and later versions, derive the same.
    assert key.cursor_key.hex() == "67f115cd0bb6f005278f302aaa40125558939bab725c0d619064ec0b45c375e8"
    assert secret_key == b"-ORVMzsNBIlzQbpNDSecENKDHDuGt-7Dhk7d98ZeeQA="
    assert bucket_key == b"IXUxPqeKMEXOs5po1zSO1IsecrlkYIkELRvipQ44ALM="
    assert repr(key) == "<ClusterKey, 0 others>"
    with pytest.raises(ValueError, match="32 bytes, not 31"):
        ClusterKey(RAW[1:])


@pytest.mark.parametrize(
    ("content", "mode", "says"),
    [
        (None, 0o600, "No such file"),
        (b"", 0o600, "has to be 32 random bytes"),
        (b"swordfish", 0o600, "has to be 32 random bytes"),
        (RAW[1:], 0o600, "has to be 32 random bytes"),
        (RAW + b"\n", 0o600, "has to be 32 random bytes"),
        (RAW.hex().encode()[:-1], 0o600, "has to be 32 random bytes"),
        (RAW.hex().encode() + b"\nswordfish\n", 0o600, "has to be 32 random bytes"),
        ((RAW.hex().encode() + b"\n") * 16, 0o600, "of up to 1024 bytes in all"),
        (RAW, 0o640, "chmod 600"),
        (RAW, 0o604, "chmod 600"),
    ],
)
async def test_a_file_that_is_not_fit_is_one_line_at_the_start(
    tmp_path: Path, content: bytes | None, mode: int, says: str
) -> None:
    path = tmp_path / "cluster.key"
    if content is not None:
        key_file(tmp_path, content, mode)
    with pytest.raises(ClusterKeyError, match=says):
        ClusterKey.read(path)
    data = tmp_path / "data"
    settings = ServerSettings(data_dir=data, port=0, cluster=ClusterSettings(key_file=path))
    with pytest.raises(ServerStartError, match=says) as caught:
        await Server(settings).start()
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "swordfish" not in str(caught.value)
    assert not data.exists(), "nothing was made before"


async def test_with_a_cluster_key_a_data_directory_has_no_keys_of_cursors_and_secrets(tmp_path: Path) -> None:
    data = tmp_path / "data"
    settings = ServerSettings(
        data_dir=data, port=0, api_keys=True, cluster=ClusterSettings(key_file=key_file(tmp_path))
    )
    for _ in range(2):
        async with Server(settings):
            assert not (data / "cursors.key").exists()
            assert not (data / "secrets.key").exists()


def test_cursors_of_one_directory_are_good_for_another_one(tmp_path: Path) -> None:
    key = ClusterKey(RAW)
    one, other = (CursorKeys.read(tmp_path / name, key) for name in ("a", "b"))
    sealed = Cursors(CURSOR.epoch, one.present).of(CURSOR)
    assert Cursors(CURSOR.epoch, other.present).parse(sealed) == CURSOR


def test_cursors_from_before_the_cluster_key_stay_good(tmp_path: Path) -> None:
    sealed = Cursors(CURSOR.epoch, CursorKeys.read(tmp_path).present).of(CURSOR)
    keys = CursorKeys.read(tmp_path, ClusterKey(RAW))
    assert keys.present == ClusterKey(RAW).cursor_key
    cursors = Cursors(CURSOR.epoch, keys.present, [(each.key, each.until) for each in keys.previous])
    assert cursors.parse(sealed) == CURSOR
    assert cursors.of(CURSOR) != sealed


async def test_secrets_from_before_the_cluster_key_are_read_and_later_ones_need_it(tmp_path: Path) -> None:
    store = await SecretStore.open(tmp_path, {})
    await store.put("a", "one")
    keys = ClusterKey(RAW).secret_keys
    store = await SecretStore.open(tmp_path, {}, cluster_keys=keys)
    assert store.get("a") == "one"
    await store.put("b", "two")
    store = await SecretStore.open(tmp_path, {}, cluster_keys=keys)
    assert (store.get("a"), store.get("b")) == ("one", "two")
    others: tuple[tuple[bytes, ...], ...] = ((), ClusterKey(RAW[::-1]).secret_keys)
    for other in others:
        with pytest.raises(SecretStoreError, match="was written with another key"):
            await SecretStore.open(tmp_path, {}, cluster_keys=other)


def test_lines_behind_the_first_are_keys_that_are_read_too(tmp_path: Path) -> None:
    new, old = RAW, RAW[::-1]
    lines = f"{new.hex()}\n{old.hex()}\n".encode()
    key = ClusterKey.read(key_file(tmp_path, lines))
    assert key.cursor_key == ClusterKey(new).cursor_key
    assert key.secret_keys == ClusterKey(new).secret_keys + ClusterKey(old).secret_keys
    assert key.bucket_keys == ClusterKey(new).bucket_keys + ClusterKey(old).bucket_keys
    assert repr(key) == "<ClusterKey, 1 others>"
    keys = CursorKeys.read(tmp_path / "data", key)
    cursors = Cursors(CURSOR.epoch, keys.present, [(each.key, each.until) for each in keys.previous])
    assert cursors.parse(Cursors(CURSOR.epoch, ClusterKey(old).cursor_key).of(CURSOR)) == CURSOR
    assert cursors.of(CURSOR) == Cursors(CURSOR.epoch, ClusterKey(new).cursor_key).of(CURSOR)


async def test_secrets_of_a_directory_are_encrypted_anew_under_the_first_line(tmp_path: Path) -> None:
    old, new = ClusterKey(RAW), ClusterKey(RAW[::-1])
    store = await SecretStore.open(tmp_path, {}, cluster_keys=old.secret_keys)
    await store.put("a", "one")
    (tmp_path / "events.db").touch()
    done = rotate_keys(tmp_path, cursors_for_seconds=60.0, cluster_key=ClusterKey(RAW[::-1], [RAW]))
    assert done == (1, None)
    assert (await SecretStore.open(tmp_path, {}, cluster_keys=new.secret_keys)).get("a") == "one"
    with pytest.raises(SecretStoreError, match="was written with another key"):
        await SecretStore.open(tmp_path, {}, cluster_keys=old.secret_keys)
    assert not (tmp_path / "secrets.key").exists()
    assert not (tmp_path / "cursors.key").exists()


def test_a_cursor_key_from_before_the_cluster_key_is_good_for_as_long_as_a_rotation_says(
    tmp_path: Path,
) -> None:
    own = CursorKeys.read(tmp_path).present
    (tmp_path / "events.db").touch()
    key = ClusterKey(RAW)
    rotate_keys(tmp_path, cursors_for_seconds=60.0, cluster_key=key)
    keys = CursorKeys.read(tmp_path, key)
    assert keys.present == key.cursor_key
    (until,) = [each.until for each in keys.previous if each.key == own]
    assert until < math.inf
