"""The server's log lines: facts on stderr, above the level, nothing of what variables held."""

from __future__ import annotations

import json

import pytest

from circuit_breaker_server import logs


def test_a_line_is_key_value_on_stderr_from_the_level_on(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("info")
    logger = logs.get_logger("session")
    logger.debug("unseen")
    logger.info("closed", code=1012, reason="the server is shutting down")
    captured = capsys.readouterr()
    assert not captured.out
    (line,) = captured.err.splitlines()
    for fact in ("level=info", "event=closed", "component=session", "code=1012", 'reason="the server'):
        assert fact in line


def test_a_line_is_json_where_that_is_wanted(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("info", "json")
    logs.get_logger("session").info("closed", code=1012, reason='the "server" is\nshutting down')
    (line,) = capsys.readouterr().err.splitlines()
    fact = json.loads(line)
    assert fact.pop("timestamp").endswith("Z")
    assert fact == {
        "level": "info",
        "event": "closed",
        "component": "session",
        "code": 1012,
        "reason": 'the "server" is\nshutting down',
    }
    logs.configure("warning")


def test_an_exception_is_told_with_its_trace_and_without_the_values_of_variables(
    capsys: pytest.CaptureFixture[str],
) -> None:
    logs.configure("warning")

    def fail(secret: str) -> None:
        raise ValueError(f"{len(secret)} characters")

    try:
        fail("".join(["sword", "fish"]))
    except ValueError:
        logs.get_logger("gateway").exception("projection_failed")
    captured = capsys.readouterr()
    assert "ValueError: 9 characters" in captured.err
    assert "swordfish" not in captured.err


def test_an_unknown_level_is_refused() -> None:
    with pytest.raises(KeyError):
        logs.configure("loud")
