"""Follow the record stream with a pull consumer of our own, whose sequence numbers are checked.

A consumer is cheap and can vanish at any moment: with its server, by an administrator, or with messages
that were dropped on the way. Whenever its numbers have a gap, or it is not heard of, it is replaced by a
new one that starts behind the last record that was delivered. While none can be made, records are read.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final, final

import nats.errors
from nats.aio.msg import Msg

from circuit_breaker_server.log.event_log import LogCorruptError, LogError, Record
from circuit_breaker_server.log.jetstream.broker import Broker, status_of, try_seconds
from circuit_breaker_server.log.jetstream.envelope import record_from_delivery
from circuit_breaker_server.log.jetstream.errors import ApiError, BrokerUnavailable
from circuit_breaker_server.log.jetstream.reads import Reader
from circuit_breaker_server.log.jetstream.stream import Streams
from circuit_breaker_server.logs import get_logger

__all__ = ["Tail"]

logger = get_logger("event_log")

_SECOND_NS: Final = 1_000_000_000
_PULL_MESSAGES: Final = 500
_PULL_BYTES: Final = 32 * 1024 * 1024
_PULL_SECONDS: Final = 30
_HEARTBEAT_SECONDS: Final = 1
_SILENCE_SECONDS: Final = 3.0
# With a record that was acknowledged and did not come, silence tells sooner that the consumer is gone.
_OVERDUE_SECONDS: Final = 0.7
_LOOK_SECONDS: Final = 0.25
_INACTIVE_SECONDS: Final = 30
_READ_ON_SECONDS: Final = 1.0
_READ_ON_PAUSE_SECONDS: Final = 0.02
_MAX_SHORT_ANSWERS: Final = 12
_SHORT_ANSWER_SECONDS: Final = 1.0
_HEARTBEAT, _PULL_ENDED, _MAYBE_LOST = "100", ("404", "408"), "409"


@final
class Tail:
    """Deliver each record behind an offset once, in order.

    :ivar is_following: whether records arrive as they are appended; false while the consumer is replaced.

    Example::

        tail = Tail(broker, streams, after=log_end, deliver=fold, fail=report)
        tail.start()
        await tail.aclose()
    """

    def __init__(
        self,
        broker: Broker,
        streams: Streams,
        *,
        after: int,
        deliver: Callable[[Sequence[Record], int], None],
        fail: Callable[[LogError], None],
        reader: Reader,
    ) -> None:
        """Name the last offset that is known.

        ``deliver`` is called with the records behind it, and with the offset up to which they are all.
        ``fail`` is called, and the tail ends, where records are missing for good: trimmed before they were
        delivered, or gone with the stream. ``reader`` reads what is there while no consumer can be made.
        """
        self._fail = fail
        self._reader = reader
        self._broker = broker
        self._streams = streams
        self._last = after
        self._deliver = deliver
        self._task: asyncio.Task[None] | None = None
        self._consumer: _Consumer | None = None
        self._short_answers = 0
        self.is_following = True
        broker.on_reconnect(self._reconnected)

    def start(self) -> None:
        """Begin to follow."""
        self._task = asyncio.get_running_loop().create_task(self._follow(), name="event-log-tail")

    async def aclose(self) -> None:
        """End and wait for the end."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    def expect(self, offset: int) -> None:
        """Note that the stream has stored a record: it is to be delivered soon."""
        if self._consumer is not None:
            self._consumer.expect(offset)

    def _reconnected(self) -> None:
        # The server at the other end, maybe another one, knows nothing of the pulls under way.
        if self._consumer is not None:
            self._consumer.lose("the connection was lost")

    async def _follow(self) -> None:
        tries = 0
        while True:
            tries += 1
            consumer = _Consumer(
                self._broker, self._streams, after=self._last, deliver=self._delivered, tries=tries
            )
            try:
                if (loss := await self._loss()) is not None:
                    logger.critical("log_lost_records", reason=str(loss))
                    self._fail(loss)
                    return
                await consumer.open()
                self._consumer, tries = consumer, 0
                self.is_following = True
                reason = await consumer.wait_until_lost()
                logger.info("tail_begins_again", stream=self._streams.name, reason=reason)
            except (ApiError, BrokerUnavailable) as error:
                logger.info("tail_cannot_begin", stream=self._streams.name, reason=str(error))
                await self._pause()
                self.is_following = await self._read_on()
            else:
                self.is_following = False
            finally:
                self._consumer = None
                await consumer.aclose()

    async def _pause(self) -> None:
        if self._short_answers:
            await asyncio.sleep(_SHORT_ANSWER_SECONDS)
        else:
            await self._broker.pause(_SILENCE_SECONDS)

    async def _read_on(self) -> bool:
        """Read what is there, for a while, without a consumer; tell whether that was possible.

        To make one takes the leader of all brokers; to read takes that of the stream, which may be another
        one. Appends wait for the tail: so they need not wait for an election that is not about them.
        """
        loop = asyncio.get_running_loop()
        until = loop.time() + _READ_ON_SECONDS
        with contextlib.suppress(ApiError, BrokerUnavailable, LogError, TimeoutError):
            async with asyncio.timeout(_SILENCE_SECONDS):
                while loop.time() < until:
                    state = await self._streams.state(patience_seconds=0.0)
                    if state.epoch != self._streams.epoch:
                        return False  # the next look for losses says what that means
                    while self._last < state.last_offset:
                        page = await self._reader.page(
                            (">",),
                            after=self._last,
                            upto=state.last_offset,
                            limit=_PULL_MESSAGES,
                            max_bytes=_PULL_BYTES,
                        )
                        self._delivered(page.records, page.reached)
                    self.is_following = True
                    await asyncio.sleep(_READ_ON_PAUSE_SECONDS)
                return True
        return False

    async def _loss(self) -> LogError | None:
        """Return why the stream does not continue what was delivered, if it does not."""
        where = f"{self._broker.url}, stream {self._streams.name}"
        state = await self._streams.state(patience_seconds=_SILENCE_SECONDS)
        if state.epoch != self._streams.epoch:
            return LogCorruptError(f"{where}: it was replaced by another log; start this server again")
        if state.first_offset > self._last + 1:
            return LogError(
                f"{where}: records behind {self._last} were trimmed before this server has seen them; "
                "start it again, from the newest snapshot"
            )
        if state.last_offset >= self._last:
            self._short_answers = 0
            return None
        # A leader that was deposed and does not know it yet answers with an old state, for a few seconds.
        self._short_answers += 1
        if self._short_answers < _MAX_SHORT_ANSWERS:
            raise BrokerUnavailable("the stream is shorter than it was", was_sent=True)
        return LogCorruptError(
            f"{where}: it ends at {state.last_offset}, and this server has seen {self._last}: acknowledged "
            "records were lost, by a restored backup or a power cut without `sync_interval: always`"
        )

    def _delivered(self, records: Sequence[Record], last: int) -> None:
        self._last = last
        self._deliver(records, last)


@final
class _Consumer:
    """One consumer of the server, and the pulls that are under way on it."""

    def __init__(
        self,
        broker: Broker,
        streams: Streams,
        *,
        after: int,
        deliver: Callable[[Sequence[Record], int], None],
        tries: int,
    ) -> None:
        self._broker = broker
        self._streams = streams
        self._last = after
        self._deliver = deliver
        self._tries = tries
        self._name = f"tail-{secrets.token_hex(8)}"
        self._inbox = broker.new_inbox()
        self._loop = asyncio.get_running_loop()
        self._lost: asyncio.Future[str] = self._loop.create_future()
        self._heard = self._loop.time()
        self._expected = 0
        self._expected_at = 0.0
        self._delivered = 0
        self._pulls: deque[_Pull] = deque()
        self._pulls_made = 0
        self._received: list[Record] = []
        self._flush_is_due = False
        self._subscription: object | None = None

    async def open(self) -> None:
        """Make the consumer and ask for the first messages."""
        name, stream = self._name, self._streams.name
        self._subscription = await self._broker.subscribe(f"{self._inbox}.*", self._receive)
        config = {
            "name": name,
            "deliver_policy": "by_start_sequence",
            "opt_start_seq": self._last + 1,
            "ack_policy": "none",
            "mem_storage": True,
            "num_replicas": 1,
            "inactive_threshold": _INACTIVE_SECONDS * _SECOND_NS,
        }
        await self._broker.api(
            f"CONSUMER.CREATE.{stream}.{name}",
            {"stream_name": stream, "config": config},
            timeout_seconds=try_seconds(self._tries),
        )
        await self._pull()

    async def wait_until_lost(self) -> str:
        """Wait for the end of the consumer; return the reason."""
        while True:
            until = self._heard + _SILENCE_SECONDS
            if self._last < self._expected:
                until = min(until, max(self._heard, self._expected_at) + _OVERDUE_SECONDS)
            left = until - self._loop.time()
            if left <= 0:
                return "nothing was heard of the consumer"
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(left, _LOOK_SECONDS)):
                    return await asyncio.shield(self._lost)

    def expect(self, offset: int) -> None:
        """Note that the stream has a record, so that silence about it means something."""
        if self._expected <= self._last:
            self._expected_at = self._loop.time()
        self._expected = max(self._expected, offset)

    def lose(self, reason: str) -> None:
        """End the consumer."""
        if not self._lost.done():
            self._lost.set_result(reason)

    async def aclose(self) -> None:
        """Forget the consumer, on the server as well if it can be reached."""
        self.lose("closed")
        subscription: object = self._subscription
        if subscription is None:
            return
        with contextlib.suppress(nats.errors.Error, OSError):
            await subscription.unsubscribe()  # type: ignore[attr-defined]
        with contextlib.suppress(BrokerUnavailable, ApiError):
            # Its answer does not matter: a consumer that nobody pulls from is removed by the server.
            await self._broker.publish(f"$JS.API.CONSUMER.DELETE.{self._streams.name}.{self._name}", b"")

    async def _pull(self) -> None:
        token = str(self._pulls_made)
        self._pulls_made += 1
        self._pulls.append(_Pull(token))
        body = {
            "batch": _PULL_MESSAGES,
            "max_bytes": _PULL_BYTES,
            "expires": _PULL_SECONDS * _SECOND_NS,
            "idle_heartbeat": _HEARTBEAT_SECONDS * _SECOND_NS,
        }
        try:
            await self._broker.publish(
                f"$JS.API.CONSUMER.MSG.NEXT.{self._streams.name}.{self._name}",
                json.dumps(body).encode(),
                reply=f"{self._inbox}.{token}",
            )
        except BrokerUnavailable as error:
            self.lose(str(error))

    async def _receive(self, message: Msg) -> None:
        if self._lost.done():
            return
        self._heard = self._loop.time()
        if message.reply.startswith("$JS.ACK."):
            self._receive_record(message)
        else:
            self._receive_status(message)
        if not self._lost.done() and sum(pull.left for pull in self._pulls) <= _PULL_MESSAGES // 2:
            await self._pull()

    def _receive_record(self, message: Msg) -> None:
        # $JS.ACK.[domain.account.]stream.consumer.delivered.sequence.number.time.pending[.random]
        tokens = message.reply.split(".")
        offset, number, time_ns = (int(t) for t in (tokens[5:8] if len(tokens) == 9 else tokens[7:10]))
        if number != self._delivered + 1 or offset <= self._last:
            self.lose(f"message {self._delivered + 1} of the consumer is missing")
            return
        self._delivered = number
        self._last = offset
        if self._pulls:
            self._pulls[0].left -= 1
            if self._pulls[0].left <= 0:
                self._pulls.popleft()
        record = record_from_delivery(message, self._streams.prefix, offset=offset, time_ns=time_ns)
        if record is not None:
            self._received.append(record)
        if not self._flush_is_due:
            # Records that arrive in the same turn of the loop are one group.
            self._flush_is_due = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._flush_is_due = False
        records, self._received = self._received, []
        # What was received in order before a loss counts; the next consumer starts behind it.
        self._deliver(records, self._last)

    def _receive_status(self, message: Msg) -> None:
        status = status_of(message)
        headers = message.headers or {}
        if status == _HEARTBEAT:
            if int(headers.get("Nats-Last-Consumer", self._delivered)) != self._delivered:
                self.lose(f"messages behind {self._delivered} of the consumer are missing")
        elif status in _PULL_ENDED or (status == _MAYBE_LOST and "Nats-Pending-Messages" in headers):
            token = message.subject.rpartition(".")[2]
            self._pulls = deque(pull for pull in self._pulls if pull.token != token)
        else:
            self.lose(f"{status} {headers.get('Description', '')}".strip())


@final
class _Pull:
    """A request for messages; ``left`` of them have not come yet."""

    __slots__ = ("left", "token")

    def __init__(self, token: str) -> None:
        self.token = token
        self.left = _PULL_MESSAGES
