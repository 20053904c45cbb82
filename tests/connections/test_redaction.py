"""What is taken out of texts, and what is left in them."""

from __future__ import annotations

import pytest

from circuit_breaker_sdk.connections import Credentials
from circuit_breaker_sdk.connections.redaction import Redaction
from circuit_breaker_sdk.errors import ConnectionFailed, GraphQLError

SECRET = "s3cret-token-0123456789"
REDACTION = Redaction(lambda: [SECRET, 'with"quote\\', "short"])


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (f"a {SECRET} b {SECRET}", "a [redacted] b [redacted]"),
        (f"a {SECRET[:12]}", "a [redacted]"),
        (f"a {SECRET[:8]}{SECRET[:10]}!", "a [redacted][redacted]!"),
        (f"a {SECRET[:7]}", f"a {SECRET[:7]}"),
        ("short", "short"),
        ('{"a":"with\\"quote\\\\"}', '{"a":"[redacted]"}'),
        ("", ""),
    ],
)
def test_a_secret_is_taken_out_whole_or_cut_and_what_is_short_stays(text: str, shown: str) -> None:
    assert REDACTION.text(text) == shown


def test_the_beginning_of_a_secret_repeated_a_million_times_is_taken_out_in_one_pass() -> None:
    assert REDACTION.text(SECRET[:8] * 1_000_000) == "[redacted]" * 1_000_000


def test_errors_without_a_secret_are_the_same_objects() -> None:
    error = GraphQLError(message="m", path=("a", 1), extensions={"code": "X"})
    assert REDACTION.errors((error,))[0] is error


def test_extensions_that_cannot_be_looked_through_are_left_out() -> None:
    deep: dict[str, object] = {}
    for _ in range(100_000):
        deep = {"a": deep}
    (error,) = REDACTION.errors((GraphQLError(message="m", extensions=deep),))
    assert error == GraphQLError(message="m")
    while deep:  # taken apart here, for the interpreter would do it by recursion
        deep = deep.pop("a")  # type: ignore[assignment]  # as built above


def test_a_secret_that_is_no_unicode_disturbs_nothing() -> None:
    redaction = Credentials(connection_params={"a": 'quo"te\udc80'}).redaction
    assert str(redaction.error(ConnectionFailed("refused"))) == "refused"


def test_origin_and_user_agent_are_no_secrets() -> None:
    redaction = Credentials(headers={"Origin": "https://app.example", "X-Key": "Basic abcdefgh"}).redaction
    assert redaction.text("https://app.example abcdefgh") == "https://app.example [redacted]"
