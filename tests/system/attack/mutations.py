"""Messages of ``graphql-transport-ws`` that are almost right, and JSON that never was: all from one seed."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from typing import Final, final

__all__ = ["CLIENT_MESSAGES", "SERVER_MESSAGES", "Mutator"]

IDS: Final = ("1", "2", "00000001", "00000002", "é", "a" * 128, "a" * 129, "", '"', "\\", "\u2028")
CLIENT_MESSAGES: Final[Sequence[bytes]] = (
    b'{"type":"connection_init"}',
    b'{"type":"connection_init","payload":{"Authorization":"Bearer x","resume":{"version":1}}}',
    b'{"type":"ping"}',
    b'{"type":"ping","payload":{"sent":1}}',
    b'{"type":"pong","payload":{"sent":1.5e3}}',
    b'{"id":"00000001","type":"subscribe","payload":{"query":"subscription { tick }"}}',
    (
        b'{"id":"00000002","type":"subscribe","payload":{"query":"query Q($a: Int) { x(a: $a) }",'
        b'"operationName":"Q","variables":{"a":1},"extensions":{"resume":{"after":"e:1"}}}}'
    ),
    b'{"id":"00000001","type":"complete"}',
    b'{"type":"subscribe","payload":{"query":"{ x }"},"id":"\\u0031"}',
)
SERVER_MESSAGES: Final[Sequence[bytes]] = (
    b'{"type":"connection_ack"}',
    b'{"type":"connection_ack","payload":{"resume":{"version":1,"epoch":"e"}}}',
    b'{"type":"ping","payload":{"resume":{"id":"00000001","cursor":"e:1"}}}',
    b'{"type":"pong"}',
    b'{"type":"ka"}',
    b'{"id":"00000001","type":"next","payload":{"data":{"tick":1}}}',
    (
        b'{"id":"00000002","type":"next","payload":{"data":{"tick":"\xc3\xa9"},'
        b'"extensions":{"resume":{"cursor":"e:2","prev":"e:1"}}}}'
    ),
    b'{"type":"next","id":"00000001","payload":{"data":null,"errors":[{"message":"m"}]}}',
    (
        b'{"id":"00000001","type":"error","payload":[{"message":"m","path":["a",1],"locations":[{"line":1,'
        b'"column":2}],"extensions":{"code":"NOT_FOUND"}}]}'
    ),
    b'{"id":"00000002","type":"complete"}',
)
_TYPES: Final = (
    "connection_init",
    "connection_ack",
    "ping",
    "pong",
    "subscribe",
    "next",
    "error",
    "complete",
    "ka",
    "",
    "NEXT",
    "\x00",
    "type" * 40,
)
_VALUES: Final = (
    b"null",
    b"true",
    b"[]",
    b"{}",
    b'""',
    b"0",
    b"-0",
    b"1e400",
    b"1E-400",
    b"9" * 400,
    b"-9223372036854775809",
    b"18446744073709551616",
    b"1.5e15",
    b"NaN",
    b"Infinity",
    b'"\\ud800"',
    b'"\\udfff\\ud800"',
    b'"\\u0000"',
    b"[[[]]]",
    b'[{"message":1}]',
    b'{"data":1,"data":2}',
)
_PIECES: Final = (
    b"\x00",
    b"\xff",
    b"\xc0\x80",
    b"\xed\xa0\x80",
    b"\xef\xbb\xbf",
    b"\\ud800",
    b'"',
    b"\\",
    b"{",
    b"}",
    b"]",
    b",",
    b":",
    b"\r\n",
    b'"type":"next",',
    b'"id":"2",',
    b'"payload":null,',
    b"/**/",
)
_DEPTHS: Final = (50, 500, 1_000, 5_000, 10_000)


@final
class Mutator:
    """Gives one hostile message after the other; equal seeds give equal messages.

    Example::

        Mutator(7, CLIENT_MESSAGES).message()
    """

    def __init__(self, seed: int, valid: Sequence[bytes]) -> None:
        self.random: random.Random = random.Random(seed)
        self._valid = valid
        self._mutations: Sequence[Callable[[bytes], bytes]] = (
            self._flip,
            self._truncate,
            self._splice,
            self._insert,
            self._retype,
            self._double_a_key,
            self._nest,
            self._cut_out,
        )

    def message(self) -> bytes:
        """Return a valid message in half of the cases, random JSON in some, a mutated one else.

        The valid ones keep a conversation going: what comes behind them meets a state worth attacking.
        """
        chance = self.random.random()
        if chance < 0.08:
            return self._structured()
        data = self.random.choice(self._valid)
        if chance < 0.58:
            return data
        for _ in range(self.random.choice((1, 1, 1, 2, 3, 8))):
            data = self.random.choice(self._mutations)(data)
        return data[:65_536]

    def _at(self, data: bytes) -> int:
        return self.random.randrange(len(data) + 1)

    def _flip(self, data: bytes) -> bytes:
        if not data:
            return b"\x80"
        at = self.random.randrange(len(data))
        return data[:at] + bytes((data[at] ^ (1 << self.random.randrange(8)),)) + data[at + 1 :]

    def _truncate(self, data: bytes) -> bytes:
        return data[: self._at(data)] if self.random.random() < 0.5 else data[self._at(data) :]

    def _splice(self, data: bytes) -> bytes:
        other = self.random.choice(self._valid)
        return data[: self._at(data)] + other[self._at(other) :]

    def _insert(self, data: bytes) -> bytes:
        at = self._at(data)
        return data[:at] + self.random.choice(_PIECES) * self.random.choice((1, 1, 3)) + data[at:]

    def _cut_out(self, data: bytes) -> bytes:
        first, second = sorted((self._at(data), self._at(data)))
        return data[:first] + data[second:]

    def _retype(self, data: bytes) -> bytes:
        """Put another value behind one of the colons."""
        colons = [at for at, byte in enumerate(data) if byte == 0x3A]
        if not colons:
            return data
        at = self.random.choice(colons) + 1
        end = min((e for e in (data.find(b",", at), data.find(b"}", at)) if e >= 0), default=len(data))
        return data[:at] + self._value() + data[end:]

    def _double_a_key(self, data: bytes) -> bytes:
        key = self.random.choice((b"id", b"type", b"payload", b"x", b"i\\u0064", b"query", b"message"))
        member = b'"' + key + b'":' + self._value()
        if self.random.random() < 0.5:
            return data.replace(b"{", b"{" + member + b",", 1)
        head, brace, tail = data.rpartition(b"}")
        return head + b"," + member + brace + tail

    def _nest(self, data: bytes) -> bytes:
        if self.random.random() < 0.8:
            return self._insert(data)
        depth = self.random.choice(_DEPTHS)
        opening, closing = self.random.choice(((b"[", b"]"), (b'{"a":', b"}")))
        deep = opening * depth + b"1" + closing * (depth if self.random.random() < 0.9 else 0)
        colons = [at for at, byte in enumerate(data) if byte == 0x3A]
        if not colons:
            return deep
        at = self.random.choice(colons) + 1
        end = min((e for e in (data.find(b",", at), data.find(b"}", at)) if e >= 0), default=len(data))
        return data[:at] + deep + data[end:]

    def _value(self) -> bytes:
        if self.random.random() < 0.3:
            return json.dumps(self.random.choice(_TYPES + IDS)).encode()
        return self.random.choice(_VALUES)

    def _structured(self) -> bytes:
        envelope: dict[str, object] = {}
        for key in self.random.sample(("id", "type", "payload", "x"), k=self.random.randrange(1, 5)):
            if key == "type" and self.random.random() < 0.9:
                envelope[key] = self.random.choice(_TYPES)
            elif key == "id" and self.random.random() < 0.7:
                envelope[key] = self.random.choice(IDS)
            else:
                envelope[key] = self._json(4)
        return json.dumps(envelope, ensure_ascii=self.random.random() < 0.5).encode("utf-8", "surrogatepass")

    def _json(self, depth: int) -> object:
        kind = self.random.randrange(8 if depth else 6)
        if kind == 6:
            return [self._json(depth - 1) for _ in range(self.random.randrange(4))]
        if kind == 7:
            keys = ("data", "errors", "message", "query", "variables", "resume", "cursor", "path", "\ud800")
            return {self.random.choice(keys): self._json(depth - 1) for _ in range(self.random.randrange(4))}
        values = (
            None,
            self.random.random() < 0.5,
            self.random.randrange(-(2**70), 2**70),
            self.random.uniform(-1e300, 1e300),
            self.random.choice(IDS),
            self.random.choice(_TYPES),
        )
        return values[kind]
