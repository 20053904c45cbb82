"""What a connection shows of its user, and what it keeps to itself."""

from __future__ import annotations

import pytest

from circuit_breaker_sdk.connections import Credentials
from circuit_breaker_sdk.errors import UsageError


def test_a_token_is_a_bearer_header_and_a_parameter() -> None:
    credentials = Credentials(token="t", headers={"X-A": "a"}, connection_params={"b": 1})
    assert credentials.headers() == {"X-A": "a", "Authorization": "Bearer t"}
    assert credentials.init_payload() == {"b": 1, "Authorization": "Bearer t"}


def test_what_is_given_by_name_wins_over_the_token_in_any_case_of_letters() -> None:
    credentials = Credentials(
        token="t", headers={"authorization": "Basic x"}, connection_params={"AUTHORIZATION": "y"}
    )
    assert credentials.headers() == {"authorization": "Basic x"}
    assert credentials.init_payload() == {"AUTHORIZATION": "y"}


def test_nothing_given_is_nothing_sent() -> None:
    assert (Credentials().headers(), Credentials().init_payload()) == ({}, {})


def test_what_was_given_or_handed_out_can_be_changed_without_effect() -> None:
    headers, params = {"X-A": "a"}, {"b": 1}
    credentials = Credentials(headers=headers, connection_params=params)
    headers["X-B"] = "b"
    params["c"] = 2
    credentials.headers()["X-C"] = "c"
    credentials.init_payload()["d"] = 3
    assert (credentials.headers(), credentials.init_payload()) == ({"X-A": "a"}, {"b": 1})


def test_repr_shows_names_and_no_value() -> None:
    shown = repr(Credentials(token="s1", headers={"X-A": "s2"}, connection_params={"b": "s3"}))
    assert shown == "Credentials(token=set, headers=['X-A'], connection_params=['b'])"


@pytest.mark.parametrize("value", ["", "a\r\nX-B: b", "a\nb", " a", "a ", "ä", "a\x00", "a\x7f"])
def test_a_header_value_that_could_add_a_header_is_refused_and_not_repeated(value: str) -> None:
    with pytest.raises(UsageError, match="X-A") as caught:
        Credentials(headers={"X-A": f"{value}"})
    assert not value.strip() or value not in str(caught.value)


@pytest.mark.parametrize("name", ["", "X A", "X:A", "X\r\n", "Ä"])
def test_a_header_name_that_is_none_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="no name"):
        Credentials(headers={name: "a"})


@pytest.mark.parametrize("token", ["", "sec ret", "sec\tret", "secret\r\nX: y", "secrät"])
def test_a_token_that_no_header_can_hold_is_refused_and_not_repeated(token: str) -> None:
    with pytest.raises(UsageError, match="token") as caught:
        Credentials(token=token)
    assert "sec" not in str(caught.value)
