"""Secrets that cannot be stored or read: a refusal that says to try again, and nothing of the store."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from circuit_breaker_server.engine.errors import EngineError, ErrorCode
from circuit_breaker_server.engine_secrets import EngineSecrets
from circuit_breaker_server.storage.secret_store import SecretStore


async def test_a_store_that_cannot_be_used_refuses_with_unavailable_and_says_nothing_of_itself(
    tmp_path: Path,
) -> None:
    secrets = EngineSecrets(await SecretStore.open(tmp_path, {}, is_shared=True))
    await secrets.put("agent-1", "secret")
    assert (await secrets.find("agent-1"), secrets.get("agent-1")) == ("secret", "secret")
    (tmp_path / "secrets.db").write_bytes(b"no database" * 100)
    with pytest.raises(sqlite3.DatabaseError):
        sqlite3.connect(tmp_path / "secrets.db").execute("SELECT * FROM secrets")
    for refused in (secrets.put("agent-2", "x"), secrets.find("agent-1"), secrets.remove("agent-1")):
        with pytest.raises(EngineError) as raised:
            await refused
        assert raised.value.code is ErrorCode.UNAVAILABLE
        assert str(tmp_path) not in str(raised.value)
    assert secrets.ids() == []
