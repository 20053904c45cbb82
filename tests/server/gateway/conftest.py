"""Failures that the gateway's tests provoke are not worth a line on the terminal."""

from __future__ import annotations

import math

import pytest

from circuit_breaker_server import logs


@pytest.fixture(autouse=True)
def quiet_logs(default_log_level: None) -> None:
    logs.configure("critical")


@pytest.fixture(autouse=True, params=["in a turn", "in steps"])
def flushes(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Flush every channel as one of very many members is: one member in each turn of the loop.

    No flush is followed by a rest: that takes real time.
    """
    monkeypatch.setattr("circuit_breaker_server.gateway.fan_out._SHORT_SECONDS", math.inf)
    if request.param == "in steps":
        monkeypatch.setattr("circuit_breaker_server.gateway.fan_out.MANY", 0)
        monkeypatch.setattr("circuit_breaker_server.gateway.fan_out._TURN_SECONDS", 0.0)
        monkeypatch.setattr("circuit_breaker_server.gateway.flush_of_many._IN_A_STEP", 1)
