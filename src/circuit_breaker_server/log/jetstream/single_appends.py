"""Send an append alone, and examine it until it is settled.

The leader of the stream, never a replica, says where a subject ends; appender.py says why that is enough.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Final, final

from circuit_breaker_server.log.event_log import ExpectationFailed
from circuit_breaker_server.log.jetstream.broker import Json
from circuit_breaker_server.log.jetstream.envelope import marked_at, record_from_leader
from circuit_breaker_server.log.jetstream.errors import (
    BATCH_REFUSED,
    DUPLICATE_IN_FLIGHT,
    WRONG_SEQUENCE,
    ApiError,
    BrokerUnavailable,
)
from circuit_breaker_server.log.jetstream.messages import Messages
from circuit_breaker_server.log.jetstream.pending_appends import PendingAppends
from circuit_breaker_server.log.jetstream.publishing import DuplicateId, Publisher
from circuit_breaker_server.log.jetstream.recent import RecentRecords
from circuit_breaker_server.log.jetstream.stream import Streams
from circuit_breaker_server.log.jetstream.waiting_appends import Append

__all__ = ["SingleAppends"]

_JITTER_SECONDS: Final = (0.002, 0.05)


@final
class SingleAppends:
    """The appends that are not, or no longer, part of a group.

    Example::

        single = SingleAppends(
            publisher, messages, pending, streams, recent,
            patience_seconds=8, catch_up=catch_up, recover=recover,
        )
        await single.send(append)
        await asyncio.gather(*single.cancel(), return_exceptions=True)
    """

    def __init__(
        self,
        publisher: Publisher,
        messages: Messages,
        pending: PendingAppends,
        streams: Streams,
        recent: RecentRecords,
        *,
        patience_seconds: float,
        catch_up: Callable[[], Awaitable[bool]],
        recover: Callable[[Sequence[Append]], Awaitable[None]],
    ) -> None:
        """Settle appends in ``pending``; the leader is asked for so many seconds.

        :param catch_up: waits until the tail has delivered what the stream holds.
        :param recover: waits for the broker and lets appends wait to be sent again.
        """
        self._publisher = publisher
        self._messages = messages
        self._pending = pending
        self._streams = streams
        self._recent = recent
        self._patience_seconds = patience_seconds
        self._catch_up = catch_up
        self._recover = recover
        self._tasks: set[asyncio.Task[None]] = set()

    def examine(self, append: Append) -> None:
        """Settle an append that the log's end shows to conflict, beside the caller."""
        self._spawn(self._settle_alone(append, is_refused=True))

    def cancel(self) -> list[asyncio.Task[None]]:
        """Stop, and return the tasks for the caller to await. What is not settled stays so."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        return tasks

    async def send(self, append: Append) -> None:
        """Send an append once; what does not succeed goes on beside the sender."""
        if append.answer.done():
            return
        try:
            await self._publisher.publish_single(append)
        except ApiError as error:
            if error.error_code in WRONG_SEQUENCE:
                self._spawn(self._settle_alone(append, is_refused=True))
            elif _is_passing(error):
                self._spawn(self._settle_alone(append, is_refused=False))
            else:
                self._pending.refuse(append, error)
        except DuplicateId as duplicate:
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
                await self._publisher.publish_single(append)
            except ApiError as error:
                append.problem = str(error)
                is_refused = error.error_code in WRONG_SEQUENCE
                if not is_refused and not _is_passing(error):
                    self._pending.refuse(append, error)
            except DuplicateId as duplicate:
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
                    self._pending.settle(append, own)
                    return True
        # The tail has shown more of the subject: to ask the leader again tells.
        is_behind = actual < expected <= (self._recent.last_offset_of(record.subject) or 0)
        if not is_behind:
            self._pending.settle(append, ExpectationFailed(record.subject, expected=expected, actual=actual))
        return not is_behind

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
                self._pending.settle(
                    append, ExpectationFailed(name, expected=guards.decided_at, actual=actual)
                )
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
                self._pending.refuse(append, error)
                return
            there = None if message is None else record_from_leader(message, self._streams.prefix)
            if there is not None and there.id == append.record.id:
                self._pending.settle(append, there)
            else:
                append.deduplicated = False
                await self._settle_alone(append, is_refused=False)

    async def _from_leader(self, query: dict[str, object]) -> Json | None:
        return await self._streams.message_of_records(
            query, known=self._recent.last_offset, patience_seconds=self._patience_seconds
        )

    def _spawn(self, work: Coroutine[object, object, None]) -> None:
        task = asyncio.get_running_loop().create_task(work, name="event-log-append")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _is_passing(error: ApiError) -> bool:
    return (
        error.is_temporary
        or error.error_code == DUPLICATE_IN_FLIGHT
        or error.error_code in BATCH_REFUSED  # of what has guards: it cannot go without a batch
    )
