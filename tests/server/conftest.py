"""The level of the server's logs is the process's: what one test sets, the next does not find."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from circuit_breaker_server import logs


@pytest.fixture(autouse=True)
def default_log_level() -> Iterator[None]:
    yield
    logs.configure("warning")
