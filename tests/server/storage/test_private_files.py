"""What is in the data directory is for its owner only, and the server says where it is not."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from circuit_breaker_server import Server, ServerSettings
from circuit_breaker_server.security.api_key_file import ApiKeyFile
from circuit_breaker_server.storage.private_files import exposed_files


@pytest.fixture(params=[0o000, 0o022])
def umask(request: pytest.FixtureRequest) -> object:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


async def test_every_file_of_the_data_directory_is_its_owners_only_whatever_the_umask(
    tmp_path: Path, umask: int
) -> None:
    data = tmp_path / "new" / "data"
    ApiKeyFile(data).create("eve", label="test")
    async with Server(ServerSettings(data_dir=data, port=0, api_keys=True, audit=True)):
        there = {path.name for path in data.rglob("*")}
        assert {"events.db", "events.db-wal", "events.db-shm", "events.lock", "audit.jsonl"} <= there
        assert {"cursors.key", "secrets.db", "api_keys.json", "audit.key"} <= there
        assert exposed_files(data) == []
        assert exposed_files(tmp_path / "new") != exposed_files(data)
    assert exposed_files(data) == []
    assert os.umask(umask) == umask


async def test_wider_rights_are_one_warning_that_names_the_file_and_what_to_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "data"
    async with Server(ServerSettings(data_dir=data, port=0)):
        pass
    assert "data_exposed" not in capsys.readouterr().err
    (data / "events.db").chmod(0o644)
    (data / "events.lock").chmod(0o640)
    async with Server(ServerSettings(data_dir=data, port=0)):
        pass
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "data_exposed" in line]
    assert str(data / "events.db") in line
    assert "files=" in line
    assert f"chmod -R go-rwx {data}" in line
