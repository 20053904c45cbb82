"""Check, compare and encode the values of the JSON scalar."""

from __future__ import annotations

from typing import final

import msgspec

__all__ = ["MAX_DEPTH", "InvalidJSON", "as_json", "check_json", "encode", "json_equal"]

MAX_DEPTH = 64
"""The most levels to which arrays and objects may nest."""

_LEAST, _GREATEST = -(2**63), 2**64 - 1

_ENCODER = msgspec.json.Encoder()


@final
class InvalidJSON(ValueError):
    """A value that JSON cannot carry unharmed.

    :ivar reason: what is wrong with it.
    :ivar path: keys and indexes that lead to it, innermost first.
    """

    def __init__(self, reason: str) -> None:
        self.reason = reason
        self.path: list[str | int] = []
        super().__init__(reason)

    def __str__(self) -> str:
        steps = (f"[{step}]" if isinstance(step, int) else f".{step[:64]}" for step in self.path[:-9:-1])
        where = "".join(steps).removeprefix(".")
        return f"{where}: {self.reason}" if where else self.reason


def check_json(value: object) -> None:
    """Refuse what JSON cannot carry unharmed.

    That is: numbers that are infinite or no number, integers of more than 64 bits (readers would round
    them), keys that are no strings, text with lone surrogates, nesting deeper than :data:`MAX_DEPTH`.

    :raises InvalidJSON: says what, and where inside the value.
    """
    _check(value, MAX_DEPTH)


def _check(value: object, depth: int) -> None:
    if value is None or isinstance(value, bool):
        return
    if isinstance(value, str):
        _check_text(value)
    elif isinstance(value, int):
        if not _LEAST <= value <= _GREATEST:
            raise InvalidJSON("an integer of more than 64 bits; send it as a string")
    elif isinstance(value, float):
        if value - value != 0.0:  # infinities and NaN, which JSON does not have
            raise InvalidJSON("not a finite number")
    elif isinstance(value, (dict, list, tuple)):
        _check_items(value, depth)
    else:
        raise InvalidJSON("not a JSON value")


def _check_items(value: dict[object, object] | list[object] | tuple[object, ...], depth: int) -> None:
    if depth == 0:
        raise InvalidJSON(f"nested more than {MAX_DEPTH} levels deep")
    at: object = None
    try:
        if isinstance(value, dict):
            for at, item in value.items():
                _check_key(at)
                _check(item, depth - 1)
        else:
            for at, item in enumerate(value):  # noqa: B007 (as above)
                _check(item, depth - 1)
    except InvalidJSON as error:
        if isinstance(at, (str, int)):
            error.path.append(at)
        raise


def _check_key(key: object) -> None:
    if not isinstance(key, str):
        raise InvalidJSON("a key that is not a string")
    _check_text(key)


def _check_text(text: str) -> None:
    if text.isascii():
        return
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InvalidJSON("text that is not valid Unicode") from error


def json_equal(a: object, b: object) -> bool:
    """Compare as JSON: numbers by value (``1`` is ``1.0``), ``true`` is no number, keys in any order."""
    if isinstance(a, bool) or isinstance(b, bool):
        return a is b
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(json_equal(item, b[key]) for key, item in a.items())
    if isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)):
        return len(a) == len(b) and all(map(json_equal, a, b))
    return a == b


def encode(value: object) -> msgspec.Raw:
    """Write a value once; the result is put into greater values as it stands."""
    return msgspec.Raw(_ENCODER.encode(value))


def as_json(value: msgspec.Struct) -> dict[str, object]:
    """Return a structure as the JSON object it is written as: dicts and lists all the way down."""
    return msgspec.json.decode(_ENCODER.encode(value), type=dict[str, object])
