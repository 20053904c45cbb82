"""Encode a variable's Python value as JSON: one rule for each kind of value.

=====================  ================================================================================
``UNSET``              not sent: the schema's default applies
``None``               ``null``
enum                   its value if that is text (so for every enum of this SDK), else its name
``datetime``           RFC 3339 in UTC with ``Z`` and milliseconds; a time without zone is refused
``date``               ``YYYY-MM-DD``
``UUID``, ``Decimal``  text
struct, dataclass      an object; a struct's own field names for the wire; ``UNSET`` fields left out
mapping, sequence      an object, a list; ``UNSET`` members of an object left out
``bytes``, NaN, ∞      refused, as is everything else
=====================  ================================================================================
"""

from __future__ import annotations

import datetime as dt
import enum
import math
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from circuit_breaker_sdk.errors import UsageError

__all__ = ["encode_variables"]


def encode_variables(variables: Mapping[str, object] | None) -> dict[str, object] | None:
    """Turn variables into plain JSON values; ``None`` for no variables at all.

    :raises UsageError: a value has no JSON form; it names the variable and the place in it.

    Example::

        encode_variables({"since": datetime(2026, 1, 2, tzinfo=UTC), "state": UNSET})
        # {"since": "2026-01-02T00:00:00.000Z"}
    """
    if variables is None:
        return None
    if not isinstance(variables, Mapping):
        raise UsageError(f"variables must be a mapping from names to values, not {type(variables).__name__}")
    try:
        return {
            str(name): _plain(value, f"${name}")
            for name, value in variables.items()
            if value is not msgspec.UNSET
        }
    except RecursionError:
        raise UsageError("the variables contain themselves, or are nested too deeply") from None


def _plain(value: object, place: str) -> object:  # noqa: PLR0911 (one return per kind is the table above)
    match value:
        case enum.Enum():
            return value.value if isinstance(value.value, str) else value.name
        case float() if not math.isfinite(value):
            raise UsageError(f"{place} is {value}, which JSON cannot say")
        case None | bool() | int() | float() | str() | msgspec.Raw():
            return value
        case dt.datetime():
            return _instant(value, place)
        case dt.date():
            return value.isoformat()
        case Mapping():
            return _object(value.items(), place)
        case msgspec.Struct():
            return _object(_struct_fields(value), place)
        case Sequence() if not isinstance(value, bytes | bytearray | memoryview):
            return [_plain(item, f"{place}[{i}]") for i, item in enumerate(value)]
        case _:
            return _seldom(value, place)


def _struct_fields(value: msgspec.Struct) -> list[tuple[object, object]]:
    names = zip(value.__struct_encode_fields__, value.__struct_fields__, strict=True)
    return [(encoded, getattr(value, name)) for encoded, name in names]


def _seldom(value: object, place: str) -> object:
    import dataclasses  # noqa: PLC0415 (these three are seldom needed, and the SDK imports fast)
    import decimal  # noqa: PLC0415
    import uuid  # noqa: PLC0415

    if isinstance(value, uuid.UUID | decimal.Decimal):
        return str(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return _object([(f.name, getattr(value, f.name)) for f in dataclasses.fields(value)], place)
    raise UsageError(f"{place} is a {type(value).__name__}, which has no JSON form")


def _object(fields: Iterable[tuple[object, object]], place: str) -> dict[str, object]:
    plain: dict[str, object] = {}
    for key, value in fields:
        if not isinstance(key, str):
            raise UsageError(f"{place} has the key {key!r}: keys of a JSON object are text")
        if value is not msgspec.UNSET:
            plain[key] = _plain(value, f"{place}.{key}")
    return plain


def _instant(value: dt.datetime, place: str) -> str:
    if value.tzinfo is None:
        raise UsageError(f"{place} is a datetime without a time zone: say which, for example tzinfo=UTC")
    utc = value.astimezone(dt.UTC).replace(tzinfo=None)
    return utc.isoformat(timespec="milliseconds") + "Z"
