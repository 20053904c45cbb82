"""Each row of the table in variables.py."""

from __future__ import annotations

import dataclasses
import datetime as dt
import decimal
import enum
import uuid

import msgspec
import pytest

from circuit_breaker_sdk.errors import UsageError
from circuit_breaker_sdk.subscriptions.variables import encode_variables
from circuit_breaker_sdk.types import UNSET, StateType


class Level(enum.IntEnum):
    HIGH = 3


class Input(msgspec.Struct, rename="camel"):
    first_name: str
    last_name: str | msgspec.UnsetType | None = UNSET


@dataclasses.dataclass
class Point:
    at_x: object
    y: object = UNSET


ID = uuid.UUID(int=1)


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (None, None),
        (StateType.REVIEW, "REVIEW"),
        (Level.HIGH, "HIGH"),
        (dt.datetime(2026, 1, 2, 3, 4, 5, 678_901, dt.UTC), "2026-01-02T03:04:05.678Z"),
        (
            dt.datetime(2026, 1, 2, 1, tzinfo=dt.timezone(dt.timedelta(hours=2))),
            "2026-01-01T23:00:00.000Z",
        ),
        (dt.date(2026, 1, 2), "2026-01-02"),
        (ID, str(ID)),
        (decimal.Decimal("1.10"), "1.10"),
        (Input("a"), {"firstName": "a"}),
        (Input("a", None), {"firstName": "a", "lastName": None}),
        (Point(Level.HIGH), {"at_x": "HIGH"}),
        ({"a": UNSET, "b": (1, [True, 1.5])}, {"b": [1, [True, 1.5]]}),
    ],
)
def test_a_value_becomes_what_its_row_says(value: object, plain: object) -> None:
    assert encode_variables({"v": value}) == {"v": plain}


def test_unset_is_not_sent_and_null_is() -> None:
    assert encode_variables({"a": UNSET, "b": None}) == {"b": None}
    assert encode_variables({}) == {}
    assert encode_variables(None) is None


@pytest.mark.parametrize(
    ("value", "place"),
    [
        (b"x", "$v is a bytes"),
        (float("nan"), "$v is nan"),
        ({"a": [1.0, float("inf")]}, "$v.a[1] is inf"),
        ({1, 2}, "$v is a set"),
        ([UNSET], "$v[0]"),
        ({1: 2}, "$v has the key 1"),
        (Input(first_name=object()), "$v.firstName is a object"),  # type: ignore[arg-type]  # what is refused
        (dt.datetime(2026, 1, 2), "time zone"),  # noqa: DTZ001 (what is refused)
        (Point, "$v is a type"),
    ],
)
def test_what_json_cannot_say_is_refused_with_its_place(value: object, place: str) -> None:
    with pytest.raises(UsageError) as caught:
        encode_variables({"v": value})
    assert place in str(caught.value)


def test_a_value_that_contains_itself_is_refused() -> None:
    loop: list[object] = []
    loop.append(loop)
    with pytest.raises(UsageError, match="themselves"):
        encode_variables({"v": loop})
