"""The store of secrets in the data directory."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from circuit_breaker_server.storage.secret_store import SecretStore
from tests.conformance.secrets_suite import Opened, SecretsSuite, Store


class TestFile(SecretsSuite):
    @pytest.fixture
    def opened(self, tmp_path: Path) -> Opened:
        @contextlib.asynccontextmanager
        async def open_() -> AsyncIterator[Store]:
            yield await SecretStore.open(tmp_path, {})

        return open_
