"""Failures that the gateway's tests provoke are not worth a line on the terminal."""

from __future__ import annotations

import pytest

from circuit_breaker_server import logs


@pytest.fixture(autouse=True, scope="package")
def quiet_logs() -> None:
    logs.configure("critical")
