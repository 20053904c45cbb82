"""Base of all events: decoding into frozen structs, lazily parsed JSON, open enums."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from typing import ClassVar, Self, TypeAlias, TypeVar, Union

import msgspec
from msgspec.structs import force_setattr

__all__ = ["JSON", "Event", "Input", "JSONInput", "OpenEnum"]

JSON: TypeAlias = Union[dict[str, "JSON"], list["JSON"], str, int, float, bool, None]  # noqa: UP007 (recursive)
"""A decoded JSON value."""

JSONInput: TypeAlias = Union[  # noqa: UP007 (as above)
    Mapping[str, "JSONInput"], Sequence["JSONInput"], str, int, float, bool, None
]
"""The values that are accepted where the schema says ``JSON``."""

T = TypeVar("T")

_decode_json = msgspec.json.Decoder().decode


class OpenEnum(enum.StrEnum):
    """An enum whose unknown values stay readable, so that a newer server never breaks a client.

    Example::

        kind = WorkflowEventType("RESOURCE_ARCHIVED")  # not in this version of the SDK
        assert kind == "RESOURCE_ARCHIVED" and not kind.known
    """

    @classmethod
    def _missing_(cls, value: object) -> Self | None:
        if not isinstance(value, str):
            return None
        # Not remembered: a peer that sends ever new values must not fill memory.
        member = str.__new__(cls, value)
        member._name_ = value
        member._value_ = value
        return member

    @property
    def known(self) -> bool:
        """Whether this version of the SDK has a name for the value."""
        return self._value_ in type(self)._value2member_map_


class Event(msgspec.Struct, frozen=True, kw_only=True, rename="camel", gc=False, eq=False):
    """Base of event types: snake_case attributes of the schema's fields; unknown fields are ignored.

    A field of the schema's ``JSON`` scalar is kept as text and decoded on first access: decoding it for
    every event would cost more than all the rest. ``gc=False``: events hold no reference cycles, and
    thousands of retained ones would slow the garbage collector down.

    Example::

        class Ticket(Event, frozen=True, kw_only=True):
            id: str
            opened_at: datetime
    """

    def _json(self, field: str) -> JSON:
        """Decode a JSON field once; the decoded value then takes the text's place."""
        value = getattr(self, field)
        if isinstance(value, msgspec.Raw):
            value = _decode_json(value)
            force_setattr(self, field, value)
        decoded: JSON = value
        return decoded

    def _json_as(self, field: str, type_: type[T]) -> T:
        value = getattr(self, field)
        if isinstance(value, msgspec.Raw):
            return msgspec.json.decode(value, type=type_)
        # As JSON is decoded: keys that are no text stand in text.
        return msgspec.convert(value, type_, str_keys=True)

    def _values(self) -> dict[str, object]:
        return {
            name.lstrip("_"): self._json(name) if name.startswith("_") else getattr(self, name)
            for name in self.__struct_fields__
        }

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return self._values() == other._values()

    __hash__: ClassVar[None] = None  # type: ignore[assignment]  # JSON values cannot be hashed

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{k}={v!r}' for k, v in self._values().items())})"


class Input(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Base of inputs: a field left ``UNSET`` is not sent, ``None`` is sent as null."""
