"""The origin of a record: the principal, the address and the node that caused it.

Every record carries its origin beside its body, so that what follows from the record (an audit line, a run, a
check) needs nothing but the record. A body is a JSON object; the origin is its member ``origin``. Programs
that do not know the member skip it, and this program reads records without it.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import Final, final

import msgspec

from circuit_breaker_sdk._version import __version__
from circuit_breaker_server.log.event_log import LogCorruptError, Record

__all__ = ["ORIGIN", "Origin", "origin_of", "with_origin"]


@final
class Origin(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The cause of a record; members with their default are left out of the record.

    :ivar v: the version of this structure.
    :ivar principal: the id of the principal whose command it is; empty for the server's own, and where no
        authentication is configured.
    :ivar tenant: the principal's tenant; ``None`` for none and for every one.
    :ivar address: the peer's address; empty for what follows from another record.
    :ivar policy: the version of the access policy that allowed it; ``None`` where there is none.
    :ivar action: the audit line of the record, for example ``createResource(workflow wf_1)``; empty: the
        record has no audit line.
    :ivar node: the name of the node that appended it; empty for the only one.
    :ivar term: the number of the node's start.
    :ivar release: the version of the program that wrote it.
    :ivar traceparent: the trace that it belongs to (W3C Trace Context); ``None`` where there is none.
    """

    v: int = 1
    principal: str = ""
    tenant: str | None = None
    address: str = ""
    policy: str | None = None
    action: str = ""
    node: str = ""
    term: int = 0
    release: str = ""
    traceparent: str | None = None

    def follow_up(self) -> Origin:
        """Return the origin of what follows from the record: the same principal, no audit line."""
        return Origin(principal=self.principal, tenant=self.tenant, traceparent=self.traceparent)


ORIGIN: Final[ContextVar[Origin]] = ContextVar("ORIGIN", default=Origin())  # noqa: B039 (frozen)
"""The origin of the records that are appended in this context."""


@final
class _Enveloped(msgspec.Struct, frozen=True):
    origin: Origin = Origin()


_encode: Final = msgspec.json.Encoder().encode
_decode: Final = msgspec.json.Decoder(_Enveloped).decode


def with_origin(body: bytes, origin: Origin, *, node: str, term: int) -> bytes:
    """Return an encoded body with its origin in it.

    :param body: a JSON object with at least one member.
    """
    written = msgspec.structs.replace(origin, node=node, term=term, release=__version__)
    return b'%b,"origin":%b}' % (body[:-1], _encode(written))


def origin_of(record: Record) -> Origin:
    """Read the origin of a record; one without it (of an older program) has an empty one.

    :raises LogCorruptError: it cannot be read.
    """
    try:
        return _decode(record.data).origin
    except msgspec.DecodeError as error:
        raise LogCorruptError(f"record {record.offset} ({record.subject}) cannot be read: {error}") from error
