"""Types that JSON can be decoded to, and the hook that decodes the others."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterator
from typing import Any, cast, final

import msgspec
import msgspec.inspect

from circuit_breaker_sdk.errors import UsageError

__all__ = ["DecodeHook", "JSONObject", "allows_none", "check_type"]

DecodeHook = Callable[[type, object], object]
"""From a class and a plain JSON value to an object of the class; it raises where the value does not fit."""

JSONObject = dict[str, Any]
"""The type to decode to where none is given: plain JSON, an object for most documents."""


def check_type(type_: object, decode_hook: DecodeHook | None = None) -> DecodeHook | None:
    """Refuse a type that JSON cannot be decoded to; return what decodes the classes in it.

    These can be: structs of msgspec, dataclasses, TypedDicts, NamedTuples, enums, builtin types, containers
    and unions of these, and models of pydantic. ``decode_hook`` decodes every other class.

    :raises UsageError: it says why.
    """
    given: object = decode_hook
    if given is not None and (not callable(given) or inspect.iscoroutinefunction(given)):
        raise UsageError(f"decode_hook is a plain function of a class and a value, not {given!r:.60}")
    try:
        msgspec.json.Decoder(type_)
        found = msgspec.inspect.type_info(type_)
    except Exception as error:  # a name in an annotation may lead anywhere
        raise UsageError(f"type={type_!r} cannot be decoded from JSON: {error}") from error
    hook = None
    for cls in _classes(found, set()):
        if _is_model(cls):
            hook = _ModelHook(decode_hook)
        elif _is_validated_dataclass(cls):
            raise UsageError(
                f"type={type_!r}: {cls.__qualname__} is a dataclass of pydantic, whose validation would be "
                "left out. Make it a BaseModel, or a plain dataclass."
            )
        elif decode_hook is None and cls is not object:
            raise UsageError(
                f"type={type_!r}: {cls.__qualname__} is not a type that JSON can be decoded to. Use a "
                "msgspec.Struct, a dataclass, a TypedDict, a builtin type or a model of pydantic, or pass "
                "decode_hook=…"
            )
    return hook or decode_hook


@final
class _ModelHook:
    """Decode models of pydantic, by their own validation; leave other classes to the application's hook."""

    __slots__ = ("_other",)

    def __init__(self, other: DecodeHook | None) -> None:
        self._other = other

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _ModelHook) and self._other == other._other

    def __hash__(self) -> int:
        return hash((_ModelHook, self._other))

    def __call__(self, cls: Any, value: object) -> object:
        if _is_model(cls):
            # As JSON: a strict model takes a time from JSON text, and not from a Python text.
            return cls.model_validate_json(msgspec.json.encode(value))
        if self._other is None:
            raise ValueError(f"there is no decode_hook for {cls.__qualname__}")
        return self._other(cls, value)


def _is_model(cls: object) -> bool:
    # Not imported here: where a model of it exists, the application has imported it.
    pydantic = sys.modules.get("pydantic")
    return pydantic is not None and isinstance(cls, type) and issubclass(cls, pydantic.BaseModel)


def _is_validated_dataclass(cls: type) -> bool:
    return hasattr(cls, "__pydantic_validator__")


def _classes(node: object, seen: set[int]) -> Iterator[type]:
    """Find the classes in a type that msgspec does not decode by itself."""
    if id(node) in seen:
        return
    seen.add(id(node))
    if isinstance(node, tuple):
        for each in node:
            yield from _classes(each, seen)
    elif isinstance(node, msgspec.inspect.CustomType) or (
        isinstance(node, msgspec.inspect.DataclassType) and _is_validated_dataclass(node.cls)
    ):
        yield node.cls
    elif isinstance(node, msgspec.inspect.Type | msgspec.inspect.Field):
        for name in node.__struct_fields__:
            yield from _classes(getattr(node, name), seen)


def allows_none(event_type: object) -> bool:
    """Return whether ``null`` is a value of a type."""
    try:
        msgspec.convert(None, cast("Any", event_type))
    except msgspec.ValidationError:
        return False
    return True
