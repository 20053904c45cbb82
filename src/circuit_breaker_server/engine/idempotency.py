"""Mutations that may be sent again: key, request and answer are in the record that is the effect.

A mutation under a key has a :class:`Claim` in its context. The command names the one record that is its
effect (:class:`Effect`), and that record gets key, hash and answer: they are durable together or not at all.
Records that only lead to it or follow from it have nothing of it. A key in the folded state
proves that the mutation happened, and holds its answer.

What is promised under one key within the time limit:

- One effect. Where a command makes one record, that is all. ``deleteMcpServer`` first revokes sessions: what
  an attempt that died half-way has revoked stays so, and the next one goes on. ``completeMcpOAuth`` first
  uses up the sign-in, ``refreshMcpSession`` first asks the provider: of an attempt that died before the
  session's record, the former is refused when it is sent again (begin anew), the latter asks again.
- Two attempts at once, on two servers with one log, have one effect: its record marks the key's name, and
  goes in only where nobody has marked it since the state was looked at.
- ``llmChatCompletion`` claims its key by the record that begins it and answers by the one that ends it: it
  never runs twice. After a crash in between, the key is refused with ``CONFLICT``.
- A refusal without a record leaves the key free.
- An answer over :data:`MAX_ANSWER_BYTES`, and one with a secret in it (``initiateMcpOAuth``), is given once
  and not kept: the key is refused afterwards, by an error that says that it happened.

What is at rest by this, beside what the record holds anyway: the answer as it was given (the text of a
completion too) and a hash of the request, whose variables may hold secrets; no secret itself.
"""

from __future__ import annotations

import enum
import uuid
from collections import deque
from collections.abc import Callable
from contextvars import ContextVar
from datetime import datetime
from typing import Final, TypeVar, final
from urllib.parse import quote

import msgspec

from circuit_breaker_server.engine.cursor import Cursor, Cursors
from circuit_breaker_server.engine.errors import EngineError, ErrorCode
from circuit_breaker_server.engine.event_derivation import derive
from circuit_breaker_server.engine.log_guards import claim_name
from circuit_breaker_server.engine.record_bodies import NO_ANSWER, Idempotency, VersionedBody
from circuit_breaker_server.engine.state_tables import Entry, Table, TablePart
from circuit_breaker_server.log.event_log import LogCorruptError, Record, Snapshot

__all__ = ["CLAIM", "MAX_ANSWER_BYTES", "Claim", "Effect", "IdempotencyState", "Kept", "Withheld"]

MAX_ANSWER_BYTES: Final = 256 * 1024

_B = TypeVar("_B", bound=VersionedBody)


class Withheld(enum.StrEnum):
    """Why a key has no answer."""

    RUNNING = "running"
    """Its mutation has begun; whether it still runs, the record cannot know."""
    TOO_LARGE = "too_large"
    SECRET = "secret"  # noqa: S105 (a reason, not a secret)


@final
class Effect(msgspec.Struct, frozen=True):
    """Marks the record that a command is.

    :ivar answers: makes the command's answer, or raises its refusal; called before the record is there, with
        the text that stands for its offset. ``None``: the answer comes with a later record.
    :ivar secret: the answer must not be at rest.
    """

    answers: Callable[[str], object] | None
    secret: bool = False

    @staticmethod
    def of(value: object) -> Effect:
        """Mark the record of a command whose answer is known by now."""
        return Effect(lambda _: value)


def _key(principal: str, key: str) -> str:
    return f"{quote(principal, safe='')}/{key}"


def _whole(answer: bytes, mark: str, cursor: Cursor, cursors: Cursors, *, with_cursor: bool) -> bytes:
    """Return an answer's bytes with what only its record knows: the offset, and the place after it."""
    if mark:
        answer = answer.replace(mark.encode(), b"%d" % cursor.offset)
    if not with_cursor:
        return answer
    return answer[:-1] + b',"extensions":{"resume":{"cursor":"%s"}}}' % cursors.of(cursor).encode()


def _last_index(record: Record) -> int:
    return max(len(derive(record)) - 1, 0)


def _nothing(_answers: Callable[[], object]) -> bytes:
    return bytes(NO_ANSWER)


@final
class Claim:
    """A key in use by the mutation that runs in this context.

    :param encode: makes the answer's JSON, without ``extensions``, of what makes the root field's value.
    :ivar guard: the name that the effect's record marks; ``None`` once it is in the log.
    :ivar is_taken: another attempt, perhaps of another server, was first.

    Example::

        CLAIM.set(Claim(principal="", key="k", request_hash="…", encode=encode))
    """

    def __init__(
        self,
        *,
        principal: str,
        key: str,
        request_hash: str,
        encode: Callable[[Callable[[], object]], bytes],
    ) -> None:
        self.guard: str | None = claim_name(principal, key)
        self.is_taken = False
        self.principal = principal
        self.key = key
        self.request_hash = request_hash
        self._encode = encode
        self._mark = uuid.uuid4().hex
        self._pending: Idempotency | None = None
        self._done: tuple[Idempotency, Record] | None = None
        self._is_over = False

    def put_into(self, body: _B, effect: Effect) -> _B:
        """Return a body with the claim in it; as it is, once the effect is in the log."""
        if self._is_over or self._done is not None:
            return body
        self._pending = self._envelope(effect)
        return msgspec.structs.replace(body, idempotency=self._pending)

    def appended(self, effect: Effect, record: Record) -> None:
        """Note that a record with the claim in it is in the log."""
        self.guard = None
        if self._done is None and self._pending is not None and effect.answers is not None:
            self._done = self._pending, record

    def taken(self) -> EngineError:
        """Note that another attempt was first, and return what this one is refused with."""
        self.is_taken = True
        return EngineError(ErrorCode.CONFLICT, "the mutation happened in another attempt under its key")

    def answer(self, cursors: Cursors, *, with_cursor: bool) -> bytes | None:
        """Return the answer that a repeated request will get; ``None`` where none is kept."""
        if self._done is None:
            return None
        kept, record = self._done
        if kept.withheld is not None:
            return None
        cursor = Cursor(cursors.epoch, record.offset, _last_index(record), record.check)
        return _whole(bytes(kept.answer), kept.mark, cursor, cursors, with_cursor=with_cursor)

    def release(self) -> None:
        """Let go of the request and its answer: the mutation is over.

        Tasks that it has begun, as the checks of an MCP server, hold their context for as long as they run.
        """
        self._is_over, self._pending, self._done, self.guard = True, None, None, None
        self._encode = _nothing

    def _envelope(self, effect: Effect) -> Idempotency:
        withheld, answer, mark = None, bytes(NO_ANSWER), ""
        if effect.answers is None:
            withheld = Withheld.RUNNING
        elif effect.secret:
            withheld = Withheld.SECRET
        else:
            answers = effect.answers
            answer = self._encode(lambda: answers(self._mark))
            if len(answer) > MAX_ANSWER_BYTES:
                withheld, answer = Withheld.TOO_LARGE, bytes(NO_ANSWER)
            elif self._mark.encode() in answer:
                mark = self._mark
        return Idempotency(
            principal=self.principal,
            key=self.key,
            hash=self.request_hash,
            answer=msgspec.Raw(answer),
            mark=mark,
            withheld=withheld,
        )


CLAIM: ContextVar[Claim | None] = ContextVar("idempotency_claim", default=None)
"""Of the mutation that runs in this context."""


@final
class Kept(Entry, frozen=True, kw_only=True):
    """The stored answer of an idempotency key; ``created`` is the offset of the key's last record.

    :ivar check: the check of that record; ``index`` is the index of its last event.
    :ivar time_ms: the time when it was appended.
    """

    hash: str
    check: str
    index: int
    time_ms: int
    answer: msgspec.Raw = NO_ANSWER
    mark: str = ""
    withheld: str | None = None

    def whole(self, cursors: Cursors, *, with_cursor: bool) -> bytes:
        """Return the answer, where it is not withheld."""
        cursor = Cursor(cursors.epoch, self.created, self.index, self.check)
        return _whole(bytes(self.answer), self.mark, cursor, cursors, with_cursor=with_cursor)


class _Enveloped(msgspec.Struct, frozen=True):
    idempotency: Idempotency | None = None


_DECODER: Final = msgspec.json.Decoder(_Enveloped)


@final
class IdempotencyState(TablePart):
    """Remember the answer of each idempotency key for a time.

    :param tokens: the tokens of all subjects: any record may have a key.
    :param seconds: the time for which a key is remembered.
    """

    def __init__(self, tokens: frozenset[str], *, seconds: float) -> None:
        self.tokens = tokens  # type: ignore[misc]  # of the others, which only the engine knows
        self._milliseconds = int(seconds * 1000)
        self._kept: Table[Kept] = Table("idempotency", Kept)
        self._by_age: deque[tuple[str, Kept]] = deque()
        super().__init__(self._kept)

    def __len__(self) -> int:
        """Return the number of keys that are remembered."""
        return len(self._kept)

    def find(self, principal: str, key: str, *, now: datetime) -> Kept | None:
        """Return the stored answer of a key; ``None`` if there is none, or if it is too old by the clock."""
        found = self._kept.get(_key(principal, key))
        if found is None or found.time_ms + self._milliseconds <= now.timestamp() * 1000:
            return None
        return found

    def restore(self, snapshot: Snapshot) -> None:
        """See :class:`Part`."""
        super().restore(snapshot)
        self._by_age = deque(self._kept.items())

    def apply(self, record: Record) -> None:
        """Take the key of a record, if it has one, and forget what is too old by its time."""
        while self._by_age and self._by_age[0][1].time_ms + self._milliseconds <= record.time_ms:
            name, old = self._by_age.popleft()
            if self._kept.get(name) is old:
                self._kept.remove(name)
        if b'"idempotency"' not in record.data:
            return
        try:
            found = _DECODER.decode(record.data).idempotency
        except msgspec.DecodeError as error:
            raise LogCorruptError(
                f"record {record.offset} ({record.subject}) cannot be read: {error}"
            ) from error
        if found is None:
            return
        name = _key(found.principal, found.key)
        kept = Kept(
            created=record.offset,
            hash=found.hash,
            check=record.check,
            index=_last_index(record),
            time_ms=record.time_ms,
            answer=msgspec.Raw(bytes(found.answer)),  # a copy: the rest of the record is let go
            mark=found.mark,
            withheld=found.withheld,
        )
        self._kept.remove(name)  # so that the table stays in the order of age
        self._kept.put(name, kept)
        self._by_age.append((name, kept))
