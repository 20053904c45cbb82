"""Messages are values."""

from __future__ import annotations

import pytest

from circuit_breaker_sdk.protocol.messages import SUBPROTOCOL, Complete, Next, Subscribe


def test_the_subprotocols_name_is_the_registered_one() -> None:
    assert SUBPROTOCOL == "graphql-transport-ws"


def test_messages_are_equal_by_type_and_content() -> None:
    assert Next("1", b"{}") == Next("1", b"{}")
    assert Complete("1") != Complete("2")


def test_messages_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        Complete("1").id = "2"  # type: ignore[misc]  # the very thing under test


def test_what_is_optional_is_none() -> None:
    message = Subscribe("1", "{ x }")
    assert (message.variables, message.operation_name, message.extensions) == (None, None, None)
