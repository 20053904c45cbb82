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
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final, final

from circuit_breaker_server.log.event_log import LogError, NewRecord, Record
from circuit_breaker_server.log.jetstream.broker import Broker
from circuit_breaker_server.log.jetstream.errors import (
    BATCH_REFUSED,
    DUPLICATE_IN_BATCH,
    DUPLICATE_IN_FLIGHT,
    WRONG_SEQUENCE,
    ApiError,
    BrokerUnavailable,
)
from circuit_breaker_server.log.jetstream.messages import Messages
from circuit_breaker_server.log.jetstream.pending_appends import PendingAppends
from circuit_breaker_server.log.jetstream.publishing import Publisher
from circuit_breaker_server.log.jetstream.recent import RecentRecords
from circuit_breaker_server.log.jetstream.single_appends import SingleAppends
from circuit_breaker_server.log.jetstream.stream import Streams
from circuit_breaker_server.log.jetstream.waiting_appends import Append, take_group

__all__ = ["Appender"]

# A batch of so few that was refused is sent one by one; a larger one is halved.
_FEW: Final = 4


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
        self._observe_group = observe_group
        self._broker = broker
        self._streams = streams
        self._recent = recent
        self._messages = Messages(streams, recent)
        self._publisher = Publisher(broker, self._messages, stored=stored)
        self._pending = PendingAppends(streams.name, patience_seconds=patience_seconds)
        self._single = SingleAppends(
            self._publisher,
            self._messages,
            self._pending,
            streams,
            recent,
            patience_seconds=patience_seconds,
            catch_up=self._catch_up,
            recover=self._recover,
        )
        self._patience_seconds = patience_seconds
        self._waiting: deque[Append] = deque()
        self._is_waiting = asyncio.Event()
        self._sender: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to send."""
        self._sender = asyncio.get_running_loop().create_task(self._send(), name="event-log-appender")

    async def append(self, record: NewRecord) -> Record:
        """Append a valid record; see the port."""
        append = self._pending.by_id.get(record.id)
        if append is None:
            append = self._pending.add(record)
            self._waiting.append(append)
            self._is_waiting.set()
        return await asyncio.shield(append.answer)

    def delivered(self, records: Sequence[Record]) -> None:
        """Settle the appends whose records the tail has delivered."""
        pending = self._pending.by_id
        for record in records:
            append = pending.get(record.id)
            if append is not None:
                self._messages.delivered(append, record)
                self._pending.settle(append, record)

    def fail(self, error: LogError) -> None:
        """Fail every append under way: the log cannot be followed any longer."""
        self._pending.fail(error)

    async def finish(self) -> None:
        """Wait until every append is settled."""
        await self._pending.finish()

    async def aclose(self) -> None:
        """Stop sending. What is not settled stays so: call :meth:`finish` before."""
        tasks = self._single.cancel()
        if self._sender is not None:
            self._sender.cancel()
            tasks.append(self._sender)
        await asyncio.gather(*tasks, return_exceptions=True)

    # --- the sender ------------------------------------------------------------------------------------

    async def _send(self) -> None:
        while True:
            await self._is_waiting.wait()
            # Not at once: what else is appended in this turn of the loop belongs to the same group.
            await asyncio.sleep(0)
            if self._pending.has_unknown:
                # An append that comes again with the id of one whose outcome is unknown is settled by the
                # tail, if that was stored: it must not be sent before the tail has caught up.
                self._pending.has_unknown = not await self._catch_up()
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
            self._single.examine(append)
        return group

    async def _send_group(self, group: Sequence[Append]) -> None:
        group = [append for append in group if not append.answer.done()]
        if len(group) > 1:
            await self._send_batch(group)
        elif group:
            await asyncio.gather(*(self._single.send(append) for append in group))

    async def _send_batch(self, group: Sequence[Append]) -> None:
        before = [append.is_uncertain for append in group]
        try:
            await self._publisher.publish_batch(group)
        except ApiError as error:
            for append, was_uncertain in zip(group, before, strict=True):
                append.is_uncertain = was_uncertain
                append.problem = str(error)
            if error.error_code in WRONG_SEQUENCE or error.error_code in (
                DUPLICATE_IN_BATCH,
                DUPLICATE_IN_FLIGHT,
            ):
                await self._send_parts(group)
            elif error.error_code in BATCH_REFUSED:
                await asyncio.gather(*(self._single.send(append) for append in group))
            elif error.is_temporary:
                await self._recover(group)
            else:
                for append in group:
                    self._pending.refuse(append, error)
        except BrokerUnavailable as error:
            for append, was_uncertain in zip(group, before, strict=True):
                append.is_uncertain = was_uncertain or error.was_sent
                append.problem = str(error)
            await self._recover(group)

    async def _send_parts(self, group: Sequence[Append]) -> None:
        """Send a refused batch again, so that only the member at fault fails."""
        if len(group) <= _FEW:
            await asyncio.gather(*(self._single.send(append) for append in group))
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
