"""Append records: groups as atomic batches, and each outcome settled by the log itself.

The sender takes what waits and sends it as one batch, which the broker stores whole or not at all. An append
is settled when the tail delivers its record; the broker's acknowledgement alone settles nothing, and a lost
one loses nothing. A refused batch is halved until the member at fault is alone; it then is examined on its
own: the stream's leader, never a replica, says at which offset the subject ends.

An append is sent again with the same id and the same expectation, so it cannot be stored twice: its first
copy moves the subject's last offset, which refuses the second one, and without an expectation the server's
duplicate window does. The first record of a subject behind the expected offset is the append's own record
or the proof of a conflict; no list of all ids is needed.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import secrets
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from typing import Final, final

from circuit_breaker_server.log.event_log import (
    AppendOutcomeUnknown,
    ExpectationFailed,
    LogError,
    LogWriteError,
    NewRecord,
    Record,
)
from circuit_breaker_server.log.jetstream.broker import Broker, Json, check_api
from circuit_breaker_server.log.jetstream.envelope import marked_at, record_from_leader
from circuit_breaker_server.log.jetstream.errors import (
    DUPLICATE_IN_BATCH,
    WRONG_SEQUENCE,
    ApiError,
    BrokerUnavailable,
)
from circuit_breaker_server.log.jetstream.messages import Messages
from circuit_breaker_server.log.jetstream.recent import RecentRecords
from circuit_breaker_server.log.jetstream.stream import Streams
from circuit_breaker_server.log.jetstream.waiting_appends import Append, take_group

__all__ = ["Appender"]

_ANSWER_SECONDS: Final = 2.0
# A batch of so few that was refused is sent one by one; a larger one is halved.
_FEW: Final = 4
_JITTER_SECONDS: Final = (0.002, 0.05)
_DUPLICATE_IN_FLIGHT: Final = 10158
# The batch is not complete, batches are not allowed, or too many are open: nothing of it was stored.
_BATCH_REFUSED: Final = frozenset({10174, 10175, 10176, 10177, 10178, 10179, 10199, 10210, 10211})


@final
class Appender:
    """Own all appends from their call to their outcome.

    Example::

        appender = Appender(broker, streams, recent, patience_seconds=8)
        appender.start()
        record = await appender.append(new_record)
        await appender.aclose()
    """

    def __init__(
        self,
        broker: Broker,
        streams: Streams,
        recent: RecentRecords,
        *,
        patience_seconds: float,
        observe_group: Callable[[float], None] | None = None,
        stored: Callable[[int], None] = lambda _offset: None,
    ) -> None:
        """Append by way of a connection; an append that is not settled in so many seconds fails.

        ``observe_group`` is called with the number of records of each group that is sent, ``stored`` with
        the offset of each acknowledgement.
        """
        self._stored = stored
        self._observe_group = observe_group
        self._broker = broker
        self._streams = streams
        self._recent = recent
        self._messages = Messages(streams, recent)
        self._patience_seconds = patience_seconds
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[Append] = deque()
        self._pending: dict[str, Append] = {}
        self._is_waiting = asyncio.Event()
        self._is_idle = asyncio.Event()
        self._is_idle.set()
        self._sender: asyncio.Task[None] | None = None
        self._has_unknown = False
        self._alone: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        """Begin to send."""
        self._sender = self._loop.create_task(self._send(), name="event-log-appender")

    async def append(self, record: NewRecord) -> Record:
        """Append a valid record; see the port."""
        append = self._pending.get(record.id)
        if append is None:
            append = Append(record, self._loop.create_future())
            append.answer.add_done_callback(_retrieve)
            append.timer = self._loop.call_later(self._patience_seconds, self._expire, append)
            self._pending[record.id] = append
            self._waiting.append(append)
            self._is_waiting.set()
            self._is_idle.clear()
        return await asyncio.shield(append.answer)

    def delivered(self, records: Sequence[Record]) -> None:
        """Settle the appends whose records the tail has delivered."""
        pending = self._pending
        for record in records:
            append = pending.get(record.id)
            if append is not None:
                self._messages.delivered(append, record)
                self._settle(append, record)

    def fail(self, error: LogError) -> None:
        """Fail every append under way: the log cannot be followed any longer."""
        for append in tuple(self._pending.values()):
            self._refuse(append, error)

    async def finish(self) -> None:
        """Wait until every append is settled."""
        await self._is_idle.wait()

    async def aclose(self) -> None:
        """Stop sending. What is not settled stays so: call :meth:`finish` before."""
        tasks = [*self._alone, *([self._sender] if self._sender is not None else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _settle(self, append: Append, outcome: Record | BaseException) -> None:
        if append.answer.done():
            return
        if append.timer is not None:
            append.timer.cancel()
        self._pending.pop(append.record.id, None)
        if not self._pending:
            self._is_idle.set()
        if isinstance(outcome, BaseException):
            append.answer.set_exception(outcome)
        else:
            append.answer.set_result(outcome)

    def _expire(self, append: Append) -> None:
        text = f"{self._streams.name}: cannot append to {append.record.subject}: {append.problem}"
        if append.is_uncertain:
            self._has_unknown = True
            self._settle(
                append,
                AppendOutcomeUnknown(f"{text}; it may be in the log, append it again with the same id"),
            )
        else:
            self._settle(append, LogWriteError(text))

    # --- the sender ------------------------------------------------------------------------------------

    async def _send(self) -> None:
        while True:
            await self._is_waiting.wait()
            # Not at once: what else is appended in this turn of the loop belongs to the same group.
            await asyncio.sleep(0)
            if self._has_unknown:
                # An append that comes again with the id of one whose outcome is unknown is settled by the
                # tail, if that was stored: it must not be sent before the tail has caught up.
                self._has_unknown = not await self._catch_up()
                continue
            group = self._take_group()
            if not self._waiting:
                self._is_waiting.clear()
            if group:
                if self._observe_group is not None:
                    self._observe_group(len(group))
                await self._send_group(group)

    def _take_group(self) -> list[Append]:
        group, conflicts = take_group(self._waiting, last_offset_of=self._recent.last_offset_of)
        for append in conflicts:
            self._spawn(self._settle_alone(append, is_refused=True))
        return group

    async def _send_group(self, group: Sequence[Append]) -> None:
        group = [append for append in group if not append.answer.done()]
        if len(group) > 1:
            await self._send_batch(group)
        elif group:
            await asyncio.gather(*(self._send_single(append) for append in group))

    async def _send_batch(self, group: Sequence[Append]) -> None:
        before = [append.is_uncertain for append in group]
        try:
            await self._publish_batch(group)
        except ApiError as error:
            for append, was_uncertain in zip(group, before, strict=True):
                append.is_uncertain = was_uncertain
                append.problem = str(error)
            if error.error_code in WRONG_SEQUENCE or error.error_code in (
                DUPLICATE_IN_BATCH,
                _DUPLICATE_IN_FLIGHT,
            ):
                await self._send_parts(group)
            elif error.error_code in _BATCH_REFUSED:
                await asyncio.gather(*(self._send_single(append) for append in group))
            elif error.is_temporary:
                await self._recover(group)
            else:
                for append in group:
                    self._refuse(append, error)
        except BrokerUnavailable as error:
            for append, was_uncertain in zip(group, before, strict=True):
                append.is_uncertain = was_uncertain or error.was_sent
                append.problem = str(error)
            await self._recover(group)

    async def _send_parts(self, group: Sequence[Append]) -> None:
        """Send a refused batch again, so that only the member at fault fails."""
        if len(group) <= _FEW:
            await asyncio.gather(*(self._send_single(append) for append in group))
            return
        middle = len(group) // 2
        await self._send_group(group[:middle])
        await self._send_group(group[middle:])

    async def _recover(self, group: Sequence[Append]) -> None:
        """Wait until the broker is back and the tail has caught up; then the rest waits to be sent again."""
        await self._catch_up()
        self._waiting.extendleft(append for append in reversed(group) if not append.answer.done())
        if self._waiting:
            self._is_waiting.set()

    async def _catch_up(self) -> bool:
        """Wait until the tail has delivered what the stream holds now; tell whether it has."""
        await self._broker.pause(self._patience_seconds)
        with contextlib.suppress(ApiError, BrokerUnavailable, TimeoutError):
            state = await self._streams.state(patience_seconds=self._patience_seconds)
            async with asyncio.timeout(self._patience_seconds):
                await self._recent.wait_for(state.last_offset)
                return True
        return False

    async def _publish_batch(self, group: Sequence[Append]) -> Json:
        messages = [message for append in group for message in self._messages.of(append)]
        batch_id, last = secrets.token_hex(16), len(messages)
        with self._broker.replies() as (reply, answers):
            for number, (subject, data, headers) in enumerate(messages, 1):
                headers["Nats-Batch-Id"] = batch_id
                headers["Nats-Batch-Sequence"] = str(number)
                if number == last:
                    headers["Nats-Batch-Commit"] = "1"
                    for each in group:
                        each.is_uncertain = True
                await self._broker.publish(
                    subject, data, headers=headers, reply=reply if number == last else ""
                )
            answer = await self._broker.next_reply(
                answers, timeout_seconds=_ANSWER_SECONDS, subject="a batch of appends"
            )
        return self._acknowledged(check_api(answer.data))

    def _acknowledged(self, answer: Json) -> Json:
        if "seq" in answer:
            self._stored(int(answer["seq"]))
        return answer

    # --- one append alone ------------------------------------------------------------------------------

    async def _send_single(self, append: Append) -> None:
        """Send an append once; what does not succeed goes on beside the sender."""
        if append.answer.done():
            return
        try:
            await self._publish_single(append)
        except ApiError as error:
            if error.error_code in WRONG_SEQUENCE:
                self._spawn(self._settle_alone(append, is_refused=True))
            elif _is_passing(error):
                self._spawn(self._settle_alone(append, is_refused=False))
            else:
                self._refuse(append, error)
        except _Duplicate as duplicate:
            self._spawn(self._settle_duplicate(append, duplicate.offset))
        except BrokerUnavailable:
            await self._recover([append])

    async def _settle_alone(self, append: Append, *, is_refused: bool) -> None:
        """Examine and send an append until it is settled; its time limits this."""
        while not append.answer.done():
            try:
                if is_refused and await self._is_settled_by_leader(append):
                    return
                await asyncio.sleep(random.uniform(*_JITTER_SECONDS))  # noqa: S311
                if append.answer.done():
                    return
                await self._publish_single(append)
            except ApiError as error:
                append.problem = str(error)
                is_refused = error.error_code in WRONG_SEQUENCE
                if not is_refused and not _is_passing(error):
                    self._refuse(append, error)
            except _Duplicate as duplicate:
                await self._settle_duplicate(append, duplicate.offset)
                return
            except BrokerUnavailable as error:
                append.problem = str(error)
                await self._catch_up()
            else:
                return

    async def _is_settled_by_leader(self, append: Append) -> bool:
        """Ask the leader where the subject ends; settle a real conflict, or an append that is stored."""
        record = append.record
        if record.expected is None:
            return False
        expected, subject = record.expected, self._streams.prefix + record.subject
        actual = await self._end_of(subject)
        if actual == expected:
            return await self._is_refused_by_guards(append)
        if actual == 0:
            # Another node may have trimmed.
            self._recent.move_first((await self._streams.state(patience_seconds=1.0)).first_offset)
            if expected < self._recent.first_offset:
                return await self._is_refused_by_guards(append)
        else:
            await self._recent.wait_for(actual)
            if append.answer.done():
                return True
            if actual > expected:
                following = await self._from_leader({"seq": expected + 1, "next_by_subj": subject})
                own = None if following is None else record_from_leader(following, self._streams.prefix)
                if own is not None and own.id == record.id:
                    self._settle(append, own)
                    return True
        self._settle(append, ExpectationFailed(record.subject, expected=expected, actual=actual))
        return True

    async def _is_refused_by_guards(self, append: Append) -> bool:
        """Ask the leader for the marks that an append checks; refuse it if there is one too many."""
        guards = append.record.guards
        if guards is None:
            return False
        for name in guards.unmarked:
            mark = await self._from_leader({"last_by_subj": self._messages.subject_of_mark(name)})
            self._messages.learn(name, 0 if mark is None else int(mark["seq"]))
            if mark is not None and (actual := marked_at(mark)) > guards.decided_at:
                await self._recent.wait_for(actual)
                self._settle(append, ExpectationFailed(name, expected=guards.decided_at, actual=actual))
                return True
        return False

    async def _end_of(self, subject: str) -> int:
        """Ask the leader for the offset of a subject's last message; 0 where there is none."""
        last = await self._from_leader({"last_by_subj": subject})
        return 0 if last is None else int(last["seq"])

    async def _settle_duplicate(self, append: Append, offset: int) -> None:
        """Answer the record whose id the server remembers; one that was trimmed is appended anew."""
        await self._recent.wait_for(offset)
        while not append.answer.done():
            try:
                message = await self._from_leader({"seq": offset})
            except BrokerUnavailable:
                await self._catch_up()
                continue
            except ApiError as error:
                self._refuse(append, error)
                return
            there = None if message is None else record_from_leader(message, self._streams.prefix)
            if there is not None and there.id == append.record.id:
                self._settle(append, there)
            else:
                append.deduplicated = False
                await self._settle_alone(append, is_refused=False)

    async def _from_leader(self, query: dict[str, object]) -> Json | None:
        return await self._streams.message_from_leader(
            self._streams.name, query, patience_seconds=self._patience_seconds
        )

    async def _publish_single(self, append: Append) -> None:
        was_uncertain, append.is_uncertain = append.is_uncertain, True
        try:
            answer = await self._publish_alone(append)
        except ApiError as error:
            append.is_uncertain, append.problem = was_uncertain, str(error)
            raise
        except BrokerUnavailable as error:
            append.is_uncertain, append.problem = was_uncertain or error.was_sent, str(error)
            raise
        if answer.get("duplicate"):
            append.is_uncertain = was_uncertain
            raise _Duplicate(int(answer["seq"]))

    async def _publish_alone(self, append: Append) -> Json:
        if append.record.guards is not None:
            return await self._publish_batch([append])
        ((subject, data, headers),) = self._messages.of(append)
        message = await self._broker.request(subject, data, headers=headers, timeout_seconds=_ANSWER_SECONDS)
        return self._acknowledged(check_api(message.data))

    def _refuse(self, append: Append, error: LogError | ApiError) -> None:
        append.problem = str(error)
        self._expire(append)

    def _spawn(self, work: Coroutine[object, object, None]) -> None:
        task = self._loop.create_task(work, name="event-log-append")
        self._alone.add(task)
        task.add_done_callback(self._alone.discard)


class _Duplicate(Exception):
    """The server remembers the id, at an offset."""

    def __init__(self, offset: int) -> None:
        super().__init__(offset)
        self.offset = offset


def _is_passing(error: ApiError) -> bool:
    return (
        error.is_temporary
        or error.error_code == _DUPLICATE_IN_FLIGHT
        or error.error_code in _BATCH_REFUSED  # of what has guards: it cannot go without a batch
    )


def _retrieve(answer: asyncio.Future[Record]) -> None:
    # Its callers may all have been cancelled: an error that nobody awaits is not worth a report.
    if not answer.cancelled():
        answer.exception()
