"""The server's log lines: facts on stderr, above the level, nothing of what variables held."""

from __future__ import annotations

import json
import logging
import sys
import threading
import warnings
from collections.abc import Iterator

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


@pytest.fixture
def process(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Be a process that is the server, without pytest's own handlers."""
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        # Other tests run a uvicorn of their own, with its own format.
        monkeypatch.setattr(logging.getLogger(name), "handlers", [])
        monkeypatch.setattr(logging.getLogger(name), "propagate", True)
    logs.configure("info", "json")
    with logs.process_lines():
        yield
    logs.configure("warning")


@pytest.mark.usefixtures("process")
def test_lines_of_libraries_have_the_format_of_the_server(capsys: pytest.CaptureFixture[str]) -> None:
    logging.getLogger("uvicorn.access").info("unseen")
    logging.getLogger("uvicorn.error").error("failed for %s", "one")
    logging.getLogger("asyncio").error("a callback failed", exc_info=ValueError("torn"))
    first, second = (json.loads(line) for line in capsys.readouterr().err.splitlines())
    assert (first["component"], first["level"], first["text"]) == ("uvicorn.error", "error", "failed for one")
    assert (second["component"], second["text"]) == ("asyncio", "a callback failed")
    assert "ValueError: torn" in second["exception"]


@pytest.mark.usefixtures("process")
def test_what_no_code_has_caught_is_a_line_too(capsys: pytest.CaptureFixture[str]) -> None:
    warnings.showwarning("old", DeprecationWarning, "module.py", 7)
    error = ValueError("torn")
    sys.excepthook(ValueError, error, None)
    threading.excepthook(threading.ExceptHookArgs((ValueError, error, None, None)))
    sys.excepthook(KeyboardInterrupt, KeyboardInterrupt(), None)
    told = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [line["event"] for line in told] == ["python_warning", "uncaught", "thread_failed"]
    assert told[0]["at"] == "module.py:7"
    assert "ValueError: torn" in told[1]["exception"]
