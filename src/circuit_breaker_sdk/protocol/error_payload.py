"""Read the payload of an ``error`` message, however sloppy a server writes it."""

from __future__ import annotations

import json
from typing import Final, TypeVar

import msgspec

from circuit_breaker_sdk.errors import GraphQLError
from circuit_breaker_sdk.protocol.lenient_json import json_defect, read_leniently

__all__ = ["read_error_payload"]

T = TypeVar("T")

_MAX_SHOWN_ERROR = 200  # bytes of a server's error that is none, for its reader to recognise
# An absent field is told by this very object.
_ABSENT: Final = msgspec.Raw()


class _ErrorEntry(msgspec.Struct):
    message: msgspec.Raw = _ABSENT
    path: msgspec.Raw = _ABSENT
    locations: msgspec.Raw = _ABSENT
    extensions: msgspec.Raw = _ABSENT


class _ErrorsObject(msgspec.Struct):
    errors: list[msgspec.Raw]


_text: Final = msgspec.json.Decoder(str)
_object: Final = msgspec.json.Decoder(dict[str, object])
_raw_list: Final = msgspec.json.Decoder(list[msgspec.Raw])
_error_entry: Final = msgspec.json.Decoder(_ErrorEntry)
_errors_object: Final = msgspec.json.Decoder(_ErrorsObject)
_path: Final = msgspec.json.Decoder(tuple[str | int, ...])
_locations: Final = msgspec.json.Decoder(tuple[dict[str, int], ...])


def read_error_payload(payload: bytes) -> tuple[GraphQLError, ...]:
    """Read the payload of an ``error``: a list of errors, one error, or an object with ``errors``.

    The operation has failed, whatever is in it: what cannot be read is said in the error's place.
    """
    return tuple(map(_graphql_error, _error_entries(payload)))


def _error_entries(payload: bytes) -> list[bytes]:
    entries = _if_it_fits(_raw_list, payload)
    if entries is None:
        holder = _if_it_fits(_errors_object, payload)
        entries = None if holder is None else holder.errors
    if entries is not None:
        return [bytes(entry) for entry in entries]
    try:
        value = read_leniently(payload)
        if isinstance(value, dict) and isinstance(value.get("errors"), list):
            value = value["errors"]
        return [
            json.dumps(_without_defects(entry), separators=(",", ":")).encode()
            for entry in (value if isinstance(value, list) else [value])
        ]
    except (ValueError, RecursionError):
        return [payload]


def _without_defects(entry: object) -> object:
    """Leave out what an error holds that no decoder reads; of a text, only the characters that are none."""
    if isinstance(entry, str):
        return entry.encode("utf-8", "replace").decode()
    if not isinstance(entry, dict):
        return entry
    sound = {key: _without_defects(value) if key == "message" else value for key, value in entry.items()}
    return {k: v for k, v in sound.items() if json_defect(json.dumps({k: v}).encode()) is None}


def _graphql_error(raw: bytes) -> GraphQLError:
    entry = _if_it_fits(_error_entry, raw)
    if entry is None:
        # Some servers send the text alone.
        return GraphQLError(message=_if_it_fits(_text, raw) or _shown(raw))
    message = None if entry.message is _ABSENT else _if_it_fits(_text, entry.message)
    return GraphQLError(
        message=_shown(raw) if message is None else message,
        path=None if entry.path is _ABSENT else _if_it_fits(_path, entry.path),
        locations=None if entry.locations is _ABSENT else _if_it_fits(_locations, entry.locations),
        extensions=None if entry.extensions is _ABSENT else _if_it_fits(_object, entry.extensions),
    )


def _shown(raw: bytes) -> str:
    why = json_defect(raw) or raw[:_MAX_SHOWN_ERROR].decode("utf-8", "replace")
    return f"an error that cannot be read: {why}"


def _if_it_fits(decoder: msgspec.json.Decoder[T], raw: bytes | msgspec.Raw) -> T | None:
    # A server's slip in the details of an error must not hide its message, nor cost the connection.
    try:
        return decoder.decode(raw)
    except (msgspec.DecodeError, RecursionError):
        return None
