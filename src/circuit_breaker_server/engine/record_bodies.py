"""Encode and decode the bodies of the log's records; each domain defines its own body types.

A body is a JSON object with ``type`` and ``v``, its version. Bodies of older versions are brought up to
date step by step by :data:`UPCASTERS`; a body of a newer version stops the start with a clear error.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TypeVar, final

import msgspec

from circuit_breaker_server.log.event_log import LogCorruptError, Record

__all__ = ["NO_ANSWER", "UPCASTERS", "VERSION", "Idempotency", "VersionedBody", "decode_as", "encode_body"]

VERSION = 1

UPCASTERS: dict[int, Callable[[dict[str, object]], dict[str, object]]] = {}
"""By version: makes the body of the next version of it, without changing what it was given."""


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


def encode_body(body: VersionedBody) -> bytes:
    """Write a body of the present version, and read it again: what cannot be read would stop the next start.

    :raises msgspec.ValidationError: a value is not of its field's type.
    """
    data = _ENCODER.encode(body)
    _reader(type(body)).decode(data)
    return data


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
    where = f"record {record.offset} ({record.subject})"
    try:
        body = msgspec.json.decode(record.data, type=dict[str, object])
        version = body.get("v")
        if not isinstance(version, int):
            raise LogCorruptError(f"{where} has no version; it was not written by this program")
        if version > VERSION:
            raise LogCorruptError(
                f"{where} has version {version}, this program reads up to {VERSION}; run the newer program"
            )
        for step in range(version, VERSION):
            body = {**UPCASTERS[step](body), "v": step + 1}
        return decoder.decode(_ENCODER.encode(body))
    except (msgspec.DecodeError, KeyError) as error:
        raise LogCorruptError(f"{where} cannot be read: {error}") from error
