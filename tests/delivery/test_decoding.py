"""One decoding from bytes to a typed event, and what is said where it does not fit."""

from __future__ import annotations

import dataclasses
import datetime as dt
import decimal
from typing import Annotated, Any, TypedDict, cast

import msgspec
import pydantic
import pydantic.dataclasses
import pytest

from circuit_breaker_sdk.delivery.consumer import value_of
from circuit_breaker_sdk.delivery.decoding import (
    EventDecoder,
    Response,
    UnfitPayloadError,
    event_decoder,
    json_decoder,
    read_errors,
)
from circuit_breaker_sdk.errors import GraphQLError, UsageError
from tests.delivery.deliveries import result


class One(msgspec.Struct):
    x: int


class Other(msgspec.Struct):
    x: int


class Model(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(strict=True)

    x: int
    at: dt.datetime | None = None

    @pydantic.field_validator("x")
    @classmethod
    def even(cls, x: int) -> int:
        if x % 2:
            raise ValueError("x must be even")
        return x


@dataclasses.dataclass
class Data:
    x: int
    inside: Model | None = None


class Keys(TypedDict):
    x: int


class Plain:
    pass


class Money:
    def __init__(self, text: str) -> None:
        self.amount = decimal.Decimal(text)


class Order(msgspec.Struct):
    price: Money
    inside: Model | None = None


class Unresolved(msgspec.Struct):
    x: "Nowhere"  # type: ignore[name-defined]  # noqa: F821, UP037 (that is the point)


@pydantic.dataclasses.dataclass
class Validated:
    x: int


def money(cls: type, value: object) -> object:
    assert cls is Money
    return Money(str(value))


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


@pytest.mark.parametrize(
    ("type_", "value", "expected"),
    [
        (One, {"x": 2}, One(2)),
        (Data, {"x": 2, "inside": {"x": 4}}, Data(2, Model(x=4))),
        (Keys, {"x": 2}, {"x": 2}),
        (
            Model,
            {"x": 2, "at": "2026-01-02T00:00:00Z"},
            Model(x=2, at=dt.datetime(2026, 1, 2, tzinfo=dt.UTC)),
        ),
        (list[Model], [{"x": 2}], [Model(x=2)]),
        (Model | None, {"x": 2}, Model(x=2)),
        (dict[str, One | int], {"a": 1}, {"a": 1}),
        (object, [1, None], [1, None]),
        (Any, {"a": [1]}, {"a": [1]}),
        (Annotated[int, msgspec.Meta(extra_json_schema={"not": "hashable"})], 1, 1),
    ],
)
def test_a_value_is_decoded_to_each_kind_of_type(type_: Any, value: object, expected: object) -> None:
    for with_resume in (False, True):
        decoder = event_decoder(type_, "tick", with_resume=with_resume)
        assert value_of(decoder.decode(result(value))) == expected
        assert (
            value_of(
                event_decoder(type_, None, with_resume=with_resume).learn(result(value)).decode(result(value))
            )
            == expected
        )
    assert json_decoder(type_)(msgspec.json.encode(value)) == expected


@pytest.mark.parametrize(
    ("type_", "text"),
    [
        (Plain, "Plain is not a type that JSON can be decoded to"),
        (list[Plain | None], "Plain is not a type"),
        (dict[str, tuple[Plain, ...]], "Plain is not a type"),
        (Order, "Money is not a type"),
        (complex, "complex is not a type"),
        (Validated, "Validated is a dataclass of pydantic"),
        (list[Validated], "Validated is a dataclass of pydantic"),
        (Unresolved, "Nowhere"),
        (One | Other, "cannot be decoded"),
        (5, "cannot be decoded"),
        ("int", "cannot be decoded"),
    ],
)
def test_any_other_type_is_refused_at_once_and_named(type_: Any, text: str) -> None:
    with pytest.raises(UsageError, match=text):
        event_decoder(type_, "tick", with_resume=False)
    with pytest.raises(UsageError, match=text):
        json_decoder(type_)


def test_a_hook_decodes_custom_scalars_beside_models() -> None:
    decoder = event_decoder(Order, None, with_resume=True, decode_hook=money)
    learned = decoder.learn(result({"price": "1.20"})).reading_cursors(False)
    order = value_of(learned.decode(result({"price": "1.20", "inside": {"x": 2}})))
    assert order.price.amount == decimal.Decimal("1.20")
    assert order.inside == Model(x=2)


@pytest.mark.parametrize("type_", [Model, list[Model], Data])
def test_a_model_that_refuses_a_value_says_why(type_: Any) -> None:
    value = {Model: {"x": 1}, Data: {"x": 2, "inside": {"x": 1}}}.get(type_, [{"x": 1}])
    assert "x must be even" in event_decoder(type_, "tick", with_resume=False).explain(result(value))


@pytest.mark.parametrize("hook", [5, "money"])
def test_a_hook_that_is_no_function_is_refused_at_once(hook: Any) -> None:
    with pytest.raises(UsageError, match="decode_hook is a plain function"):
        json_decoder(Order, hook)


def test_an_async_hook_is_refused_at_once() -> None:
    async def hook(_cls: type, _value: object) -> object:
        raise AssertionError("never called")

    with pytest.raises(UsageError, match="decode_hook is a plain function"):
        json_decoder(Order, hook)
