"""Failures that the gateway's tests provoke are not worth a line on the terminal."""

from __future__ import annotations

import pytest

from circuit_breaker_server import logs


@pytest.fixture(autouse=True)
def quiet_logs(default_log_level: None) -> None:
    logs.configure("critical")
