"""Records have their facts twice: as text and as fields, and name who logged."""

from __future__ import annotations

import logging

import pytest

from circuit_breaker_sdk.observability import log, logger


def test_a_record_has_its_facts_as_text_and_as_fields(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, "circuit_breaker_sdk"):
        log(logging.INFO, "connection closed", url="ws://h", close_code=1000, reason=None)
    (record,) = caplog.records
    assert record.getMessage() == "connection closed url=ws://h close_code=1000"
    assert (vars(record)["url"], vars(record)["close_code"]) == ("ws://h", 1000)
    assert "reason" not in vars(record)
    assert record.funcName == "test_a_record_has_its_facts_as_text_and_as_fields"


def test_where_the_level_is_off_nothing_is_made_into_text(caplog: pytest.LogCaptureFixture) -> None:
    class Unprintable:
        def __str__(self) -> str:
            raise AssertionError("it was printed")

    with caplog.at_level(logging.WARNING, "circuit_breaker_sdk"):
        log(logging.INFO, "x", fact=Unprintable())
    assert caplog.records == []


def test_without_configuration_the_library_is_silent() -> None:
    assert any(isinstance(handler, logging.NullHandler) for handler in logger.handlers)
