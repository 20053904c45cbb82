"""Format and seal the lines of the audit log.

A line is printable ASCII: any other character of a text is written as JSON's ``\\uXXXX``, so that no text can
end a line, begin another or send control characters to a terminal.
"""

from __future__ import annotations

import hmac
import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final, Literal, final

import msgspec

__all__ = [
    "GENESIS",
    "MAX_LINE_BYTES",
    "MAX_TEXT",
    "OWN_ACTIONS",
    "AuditEvent",
    "AuditRecord",
    "Seal",
    "Timestamps",
    "event_members",
    "instant",
    "open_line",
    "own_members",
    "seal_line",
    "summary_members",
]

MAX_TEXT: Final = 512
"""Characters of one text; a longer one is cut there, and ends in ``…``."""

MAX_LINE_BYTES: Final = 128 * 1024
"""More than the longest line: thirteen texts of :data:`MAX_TEXT` characters of twelve bytes each."""

GENESIS: Final = b"0" * 64
"""The previous seal of the first line, which has no line before it."""

OWN_ACTIONS: Final = frozenset({"start", "stop", "restart", "lost", "counted", "rotate"})
"""The actions of lines that the log writes about itself; no event may use them."""

_SEAL_NAME: Final = b',"mac":"'
_SEAL_END: Final = b'"}\n'
_TAIL: Final = len(_SEAL_NAME) + len(GENESIS) + len(_SEAL_END)
_SURROGATE: Final = re.compile("[\ud800-\udfff]")


@final
class AuditEvent(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An action of a caller, allowed or refused. It never holds a token or a payload.

    :ivar action: ``connect``, ``refuse``, ``subscribe``, ``resume``, ``revoke``, ``mutate``, ``query``,
        ``poll``, ``denied``, ``close``, ``policy`` …; not one of :data:`OWN_ACTIONS`.
    :ivar principal: the id of the principal; empty where they are not known.
    :ivar tenant: the tenant of the principal; ``None`` where there is not exactly one.
    :ivar address: the address of the caller.
    :ivar what: the object of the action, for example the root field and its ids.
    :ivar decision: the decision of the server.
    :ivar reason: the reason for the decision.
    :ivar policy: the version of the policy that decided.
    :ivar first_cursor: of the events this is about.
    :ivar last_cursor: likewise.
    :ivar count: the number of events that were delivered or denied.
    :ivar record: the record of the event log that the line is written for, as ``epoch.offset``; ``None``
        where the line is for none.
    :ivar taken_over: likewise, where another node had to write the line, and was declared gone.
    :ivar taken_from: the name of that node.

    Example::

        AuditEvent(action="query", principal="u-7", address="::1", what="health", decision="allowed")
    """

    action: str
    principal: str
    tenant: str | None = None
    address: str
    what: str
    decision: Literal["allowed", "refused", "ended"]
    reason: str | None = None
    policy: str | None = None
    first_cursor: str | None = None
    last_cursor: str | None = None
    count: int | None = None
    record: str | None = None
    taken_over: str | None = None
    taken_from: str | None = None


@final
class AuditRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A line as read: an :class:`AuditEvent`, or what the log says of itself (``decision`` is ``None`` then).

    :ivar seq: 1 for the first line, and one more for each.
    :ivar at: RFC 3339, UTC, microseconds; always of one length, so that it sorts as text.
    :ivar count: of ``lost`` the number of events that are missing here; of ``restart`` the bytes of a line
        that a crash had cut short.
    :ivar times: how many equal events the line stands for, where many came together; ``None``: one.
    :ivar record: of ``start`` and ``stop``: the last record of the event log whose line is written.
    :ivar file: of ``rotate``: the number of the file before.
    :ivar first_file: of ``rotate``: the number of the log's first file; those before it were removed.
    :ivar first_seq: of ``rotate``: of the first line of that file.
    :ivar previous: the seal of the line before.
    :ivar mac: the seal of this line.
    """

    seq: int
    at: str
    action: str
    principal: str = ""
    tenant: str | None = None
    address: str = ""
    what: str = ""
    decision: str | None = None
    reason: str | None = None
    policy: str | None = None
    first_cursor: str | None = None
    last_cursor: str | None = None
    count: int | None = None
    times: int | None = None
    record: str | None = None
    taken_over: str | None = None
    taken_from: str | None = None
    file: int | None = None
    first_file: int | None = None
    first_seq: int | None = None
    previous: str
    mac: str


@final
class Seal:
    """Seals texts with a key; what is sealed as a line is worth nothing as an anchor.

    Example::

        Seal(key).line(b'{"seq":1')
    """

    __slots__ = ("_anchor", "_line")

    def __init__(self, key: bytes) -> None:
        self._line = hmac.new(key, b"circuit-breaker audit line\n", "sha256")
        self._anchor = hmac.new(key, b"circuit-breaker audit anchor\n", "sha256")

    def line(self, body: bytes) -> bytes:
        """Seal a line's text; 64 hexadecimal digits."""
        mac = self._line.copy()
        mac.update(body)
        return mac.hexdigest().encode()

    def anchor(self, body: bytes) -> bytes:
        """Seal an anchor's text; 64 hexadecimal digits."""
        mac = self._anchor.copy()
        mac.update(body)
        return mac.hexdigest().encode()


@final
class Timestamps:
    """Writes instants; within one second only the fraction is new."""

    __slots__ = ("_second", "_text")

    def __init__(self) -> None:
        self._second = -1
        self._text = b""

    def write(self, seconds: float) -> bytes:
        """Write seconds since 1970, for example ``2026-07-01T12:00:00.000001Z``."""
        whole, micro = divmod(int(seconds * 1_000_000), 1_000_000)
        if whole != self._second:
            self._second = whole
            self._text = f"{datetime.fromtimestamp(whole, UTC):%Y-%m-%dT%H:%M:%S}".encode()
        return b"%b.%06dZ" % (self._text, micro)


def instant(moment: datetime) -> str:
    """Write a moment as :attr:`AuditRecord.at` is written; without an offset it is UTC."""
    aware = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
    return f"{aware.astimezone(UTC):%Y-%m-%dT%H:%M:%S.%f}Z"


_encode: Final = msgspec.json.Encoder().encode
_decode: Final = msgspec.json.Decoder(AuditRecord).decode


def event_members(event: AuditEvent) -> bytes:
    """Write the members of an event without the braces; every text bounded, everything printable ASCII."""
    try:
        text = _encode(event)
    except UnicodeEncodeError:  # half of a surrogate pair
        return _members(msgspec.structs.asdict(event))
    # What is this short as a whole has no text that is too long. Of ASCII's controls, JSON leaves DEL alone.
    short = len(text) <= MAX_TEXT or not any(
        isinstance(value, str) and len(value) > MAX_TEXT for value in msgspec.structs.astuple(event)
    )
    if short and text.isascii() and b"\x7f" not in text:
        return text[1:-1]
    return _members(msgspec.structs.asdict(event))


def own_members(
    action: str, what: str, count: int | None = None, record: str | None = None, **more: int
) -> bytes:
    """Write the members of what the log says of itself."""
    return _members({"action": action, "what": what, "count": count, "record": record, **more})


def summary_members(
    *, principal: str, tenant: str | None, address: str, what: str, decision: str, count: int
) -> bytes:
    """Write the members of the line about what was counted instead of listed."""
    return _members(
        {
            "action": "counted",
            "principal": principal,
            "tenant": tenant,
            "address": address,
            "what": what,
            "decision": decision,
            "count": count,
        }
    )


def seal_line(seal: Seal, seq: int, at: bytes, members: bytes, previous: bytes) -> tuple[bytes, bytes]:
    """Return a line with its newline, and its seal."""
    body = b'{"seq":%d,"at":"%b",%b,"previous":"%b"' % (seq, at, members, previous)
    mac = seal.line(body)
    return b"%b%b%b%b" % (body, _SEAL_NAME, mac, _SEAL_END), mac


def open_line(seal: Seal, line: bytes) -> AuditRecord | None:
    """Read a line; ``None`` if any of its bytes, the newline too, is not as it was sealed."""
    body, tail = line[:-_TAIL], line[-_TAIL:]
    if not hmac.compare_digest(tail, b"%b%b%b" % (_SEAL_NAME, seal.line(body), _SEAL_END)):
        return None
    try:
        return _decode(line)
    except msgspec.DecodeError:  # sealed with this key, but not by this code
        return None


def _members(values: Mapping[str, object]) -> bytes:
    whole = {
        name: _bounded(value) if isinstance(value, str) else value
        for name, value in values.items()
        if value is not None
    }
    # The standard library writes all that is not ASCII as escapes; msgspec does not.
    text = json.dumps(whole, separators=(",", ":")).replace("\x7f", "\\u007f")
    return text[1:-1].encode("ascii")


def _bounded(text: str) -> str:
    if len(text) > MAX_TEXT:
        text = text[: MAX_TEXT - 1] + "…"
    return _SURROGATE.sub("\ufffd", text)
