"""One decoding from bytes to a typed event, and what is said where it does not fit."""

from __future__ import annotations

from typing import cast

import msgspec
import pytest

from circuit_breaker_sdk.errors import GraphQLError, UsageError
from circuit_breaker_sdk.subscriptions.consumption import value_of
from circuit_breaker_sdk.subscriptions.decoding import (
    EventDecoder,
    Response,
    UnfitPayloadError,
    event_decoder,
    read_errors,
)
from tests.subscriptions.deliveries import result


class One(msgspec.Struct):
    x: int


class Other(msgspec.Struct):
    x: int


def cursor_of(response: Response[object]) -> str | None:
    extensions = response.extensions
    return None if extensions is None or extensions.resume is None else extensions.resume.cursor


def test_a_type_that_json_cannot_tell_apart_is_refused_at_once() -> None:
    untagged = cast("type[One | Other]", One | Other)
    with pytest.raises(UsageError, match="cannot be decoded"):
        EventDecoder(untagged, "tick", with_resume=False)


def test_extensions_are_read_only_where_resume_was_negotiated() -> None:
    odd = result(1)[:-1] + b',"extensions":{"resume":"mine"}}'
    plain = EventDecoder(int, "tick", with_resume=False)
    assert value_of(plain.decode(odd)) == 1
    assert cursor_of(plain.decode(result(1, cursor="c1"))) is None
    resuming = EventDecoder(int, "tick", with_resume=True)
    assert cursor_of(resuming.decode(result(1, cursor="c1"))) == "c1"
    assert cursor_of(resuming.decode(result(1))) is None


def test_null_fits_only_a_type_that_allows_it() -> None:
    assert not EventDecoder(int, "tick", with_resume=False).none_allowed
    assert EventDecoder(type(None), "tick", with_resume=False).none_allowed


def test_a_root_field_is_learned_only_from_one_identifier() -> None:
    decoder = EventDecoder(int, None, with_resume=False)
    for unfit in (b"{", b'{"data":{"a":1,"b":2}}', b'{"data":{"a b":1}}', b'{"data":3}'):
        assert decoder.learn(unfit) is decoder
        with pytest.raises(UnfitPayloadError):
            decoder.decode(result(1))
    learned = decoder.learn(result(1))
    assert value_of(learned.decode(result(2))) == 2
    with pytest.raises(UnfitPayloadError):
        decoder.decode(result(1))


def test_errors_without_data_can_be_read_before_the_root_field_is_known() -> None:
    decoder = EventDecoder(int, None, with_resume=False)
    payload = b'{"data":null,"errors":[{"message":"no"}]}'
    learned = decoder.learn(payload)
    assert read_errors(learned.decode(payload).errors) == (GraphQLError(message="no"),)
    assert value_of(learned.learn(result(1)).decode(result(2))) == 2


def test_subscriptions_to_the_same_share_a_decoder() -> None:
    decoder = event_decoder(One, "tick", with_resume=True)
    assert event_decoder(One, "tick", with_resume=True) is decoder
    plain = decoder.reading_cursors(False)
    assert plain is event_decoder(One, "tick", with_resume=False)
    others = (
        plain,
        event_decoder(Other, "tick", with_resume=True),
        event_decoder(One, "x", with_resume=True),
    )
    assert all(other is not decoder for other in others)


@pytest.mark.parametrize(
    ("errors", "text"),
    [
        ("no", "no"),
        ({"message": "no"}, "no"),
        ({"errors": [{"message": "no"}]}, "no"),
        ([{"text": "no"}], 'an error that cannot be read: {"text":"no"}'),
        (3, "an error that cannot be read: 3"),
    ],
)
def test_errors_in_any_shape_are_told(errors: object, text: str) -> None:
    assert read_errors(errors) == (GraphQLError(message=text),)
