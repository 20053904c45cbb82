"""Encode and decode the bodies of the log's records; each domain defines its own body types.

A body is a JSON object with ``type`` and ``v``, its version. Bodies of older versions are brought up to
date step by step by :data:`~.record_versions.UPCASTERS`; a body of a newer version stops the start with a
clear error. A log that older programs read too is written in their version, by
:data:`~.record_versions.DOWNCASTERS`.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import TypeVar, final

import msgspec

from circuit_breaker_server.engine.errors import EngineError, ErrorCode
from circuit_breaker_server.engine.record_versions import (
    DOWNCASTERS,
    UPCASTERS,
    VERSION,
    CannotStepDown,
    Step,
)
from circuit_breaker_server.log.event_log import LogCorruptError, Record

__all__ = [
    "NO_ANSWER",
    "RAISE_COMMAND",
    "Idempotency",
    "NewerRecord",
    "VersionedBody",
    "decode_as",
    "encode_body",
    "require_readable",
]

RAISE_COMMAND = "circuit-breaker nodes URL --raise-format"
"""The command for operators, once all nodes read a newer version."""


class NewerRecord(LogCorruptError):
    """A record, or the log's format, is of a newer version than this node reads."""


NO_ANSWER = msgspec.Raw(b"null")


@final
class Idempotency(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Under which key a mutation was asked for, and its answer; see :mod:`.idempotency`.

    :ivar principal: the caller: keys of different principals have nothing to do with each other.
    :ivar hash: of the request.
    :ivar answer: its JSON as it was written, without ``extensions``; null where it is withheld.
    :ivar mark: stands in the answer for the record's offset; empty where nothing does.
    :ivar withheld: why there is no answer.
    """

    key: str
    hash: str
    principal: str = ""
    answer: msgspec.Raw = NO_ANSWER
    mark: str = ""
    withheld: str | None = None


class VersionedBody(msgspec.Struct, frozen=True, kw_only=True, rename="camel", tag_field="type"):
    """The base of all bodies: their version and idempotency key.

    :ivar idempotency: only in the record that is the effect of a mutation with a key.
    """

    v: int = VERSION
    idempotency: Idempotency | msgspec.UnsetType = msgspec.UNSET


_ENCODER = msgspec.json.Encoder()

_B = TypeVar("_B", bound=VersionedBody)


def encode_body(body: VersionedBody, format_: int = VERSION) -> bytes:
    """Write a body, and read it again: what cannot be read would stop the next start.

    :param format_: the version to write: the log's format.
    :raises msgspec.ValidationError: a value is not of its field's type.
    :raises EngineError: ``INVALID_INPUT``: a log of this format cannot hold the body.
    """
    data = _ENCODER.encode(body)
    _reader(type(body)).decode(data)
    return data if format_ == VERSION else _stepped_down(body, data, format_)


def _stepped_down(body: VersionedBody, data: bytes, format_: int) -> bytes:
    try:
        old = _converted(data, DOWNCASTERS, range(VERSION, format_, -1), -1)
        _require_same(body, data, _converted(old, UPCASTERS, range(format_, VERSION), 1))
    except (CannotStepDown, KeyError, msgspec.ValidationError) as error:
        kind = type(body).__struct_config__.tag
        raise EngineError(
            ErrorCode.INVALID_INPUT,
            f"the event log is written in format {format_}, for the sake of older nodes, and cannot hold "
            f"this ({kind}): {error}; nothing was changed. Upgrade all nodes, then run `{RAISE_COMMAND}`",
            format=format_,
        ) from error
    return old


def _require_same(body: VersionedBody, data: bytes, again: bytes) -> None:
    # Compared as JSON: a step may write a number in another way.
    read = _ENCODER.encode(_reader(type(body)).decode(again))
    if msgspec.json.decode(read) != msgspec.json.decode(data):
        raise CannotStepDown("a value in it would be lost")


def _converted(data: bytes, steps: dict[int, Step], versions: Iterable[int], direction: int) -> bytes:
    """Take a body through the steps; members that no step touches keep their bytes."""
    raw = msgspec.json.decode(data, type=dict[str, msgspec.Raw])
    given = {name: msgspec.json.decode(value) for name, value in raw.items()}
    body: dict[str, object] = given
    for version in versions:
        body = {**steps[version](body), "v": version + direction}
    return _ENCODER.encode(
        {name: raw[name] if name in given and value is given[name] else value for name, value in body.items()}
    )


@functools.cache
def _reader(kind: type[VersionedBody]) -> msgspec.json.Decoder[VersionedBody]:
    return msgspec.json.Decoder(kind)


def decode_as(decoder: msgspec.json.Decoder[_B], record: Record) -> _B:
    """Read a record's body, brought up to date, as the decoder's type sees it.

    :raises LogCorruptError: the body is of a newer version, of an unknown type, or no body at all.
    """
    try:
        body = decoder.decode(record.data)
    except msgspec.DecodeError:
        return _decode_old(decoder, record)
    return body if body.v == VERSION else _decode_old(decoder, record)


def _decode_old(decoder: msgspec.json.Decoder[_B], record: Record) -> _B:
    version = _version_of(record, VERSION)
    try:
        return decoder.decode(_converted(record.data, UPCASTERS, range(version, VERSION), 1))
    except (msgspec.DecodeError, KeyError) as error:
        raise LogCorruptError(f"{_where(record)} cannot be read: {error}") from error


def require_readable(record: Record, reads: int) -> None:
    """Refuse a record of a newer version than a node reads.

    :raises NewerRecord: it is of a newer version.
    :raises LogCorruptError: it is no body at all.
    """
    _version_of(record, reads)


class _Head(msgspec.Struct):
    v: object = None


_HEAD = msgspec.json.Decoder(_Head)


def _version_of(record: Record, reads: int) -> int:
    try:
        version = _HEAD.decode(record.data).v
    except msgspec.DecodeError as error:
        raise LogCorruptError(f"{_where(record)} cannot be read: {error}") from error
    if not isinstance(version, int):
        raise LogCorruptError(f"{_where(record)} has no version; it was not written by this program")
    if version > reads:
        raise NewerRecord(
            f"{_where(record)} has version {version}, this program reads up to {reads}; run the newer program"
        )
    return version


def _where(record: Record) -> str:
    return f"record {record.offset} ({record.subject})"
