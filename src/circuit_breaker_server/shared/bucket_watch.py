"""Follow a bucket: read all of it, then each change, and all of it again where something may be missing."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import Callable
from typing import Final, Protocol, final

import nats.errors
from nats.aio.msg import Msg

from circuit_breaker_server.log.jetstream.broker import status_of
from circuit_breaker_server.log.jetstream.errors import ApiError, BrokerUnavailable
from circuit_breaker_server.logs import get_logger
from circuit_breaker_server.shared.bucket_stream import BucketState, BucketStream, StoredEntry

__all__ = ["BucketWatch", "Copy"]

logger = get_logger("bucket")

_SECOND_NS: Final = 1_000_000_000
_HEARTBEAT_SECONDS: Final = 1
_SILENCE_SECONDS: Final = 3.0
_INACTIVE_SECONDS: Final = 30
_PAUSE_SECONDS: Final = 0.5
_MAX_SHORT_ANSWERS: Final = 12
_SHORT_ANSWER_SECONDS: Final = 1.0
_FORBIDDEN: Final = 403


class Copy(Protocol):
    """The local copy that a watch keeps in step."""

    def replace(self, entries: dict[str, StoredEntry], *, upto: int, is_same: bool) -> None:
        """Take over all entries up to the revision ``upto``, and maybe later ones.

        What is known and not among them is gone, unless its revision is higher than ``upto``.

        :param is_same: if false the bucket is another one, and what is known of the one before is gone.
        """
        ...

    def change(self, name: str, entry: StoredEntry) -> None:
        """Take over one entry."""
        ...


@final
class BucketWatch:
    """Keep a copy in step with a bucket.

    :ivar is_following: whether changes arrive as they are made.

    Example::

        watch = BucketWatch(stream, copy)
        await watch.start(timeout_seconds=10)
        await watch.aclose()
    """

    def __init__(self, stream: BucketStream, copy: Copy) -> None:
        """Hold both; :meth:`start` begins."""
        self._stream = stream
        self._copy = copy
        self._task: asyncio.Task[None] | None = None
        self._consumer: _Consumer | None = None
        self._begun = asyncio.Event()
        self._created = ""
        self._last_revision = 0
        self._short_answers = 0
        self._reason: Exception | None = None
        self.is_following = False
        stream.broker.on_reconnect(self._reconnected)

    async def start(self, *, timeout_seconds: float) -> None:
        """Read all entries, and follow.

        :raises BrokerUnavailable: they could not be read in time.
        :raises ApiError: a permission is missing.
        """
        self._task = asyncio.get_running_loop().create_task(self._follow(), name="bucket-watch")
        try:
            async with asyncio.timeout(timeout_seconds):
                await self._begun.wait()
        except TimeoutError as error:
            raise self._reason or BrokerUnavailable("no answer in time", was_sent=True) from error
        if not self.is_following and self._reason is not None:
            raise self._reason

    async def aclose(self) -> None:
        """End and wait for the end."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    def _reconnected(self) -> None:
        # The server at the other end, maybe another one, sends nothing to the subscription of before.
        if self._consumer is not None:
            self._consumer.lose("the connection was lost")

    async def _follow(self) -> None:
        while True:
            consumer = self._consumer = _Consumer(self._stream, self._changed)
            try:
                state, is_same = await self._state()
                entries = await consumer.open()
                self._copy.replace(entries, upto=state.last_revision, is_same=is_same)
                self._created, self._last_revision = state.created, state.last_revision
                self._reason, self.is_following = None, True
                self._begun.set()
                reason = await consumer.wait_until_lost()
                logger.info("bucket_watch_begins_again", bucket=self._stream.name, reason=reason)
            except (ApiError, BrokerUnavailable) as error:
                self._reason = error
                if isinstance(error, ApiError) and error.code == _FORBIDDEN:
                    self._begun.set()
                logger.info("bucket_watch_cannot_begin", bucket=self._stream.name, reason=str(error))
                await self._stream.broker.pause(_PAUSE_SECONDS)
            finally:
                self.is_following = False
                self._consumer = None
                await consumer.aclose()

    def _changed(self, name: str, entry: StoredEntry) -> None:
        self._last_revision = entry.revision
        self._copy.change(name, entry)

    async def _state(self) -> tuple[BucketState, bool]:
        """Return the stream's state, and whether it is the stream that was followed before."""
        state = await self._stream.state(patience_seconds=_SILENCE_SECONDS)
        is_same = state.created == self._created
        if is_same and state.last_revision < self._last_revision:
            # A leader that was deposed and does not know it yet answers so, for a few seconds; a bucket that
            # was restored from a backup answers so for good.
            self._short_answers += 1
            if self._short_answers < _MAX_SHORT_ANSWERS:
                await asyncio.sleep(_SHORT_ANSWER_SECONDS)
                raise BrokerUnavailable("the bucket is shorter than it was", was_sent=True)
            logger.error("bucket_lost_entries", bucket=self._stream.name, last=state.last_revision)
            is_same = False
        self._short_answers = 0
        return state, is_same


@final
class _Consumer:
    """A consumer of the broker, which sends the newest entry of each name and then every change.

    Its numbers are checked: where one is missing, or nothing is heard of it, it counts as lost.
    """

    def __init__(self, stream: BucketStream, change: Callable[[str, StoredEntry], None]) -> None:
        self._stream = stream
        self._change = change
        self._name = f"watch-{secrets.token_hex(8)}"
        self._loop = asyncio.get_running_loop()
        self._lost: asyncio.Future[str] = self._loop.create_future()
        self._all_read: asyncio.Future[None] = self._loop.create_future()
        self._heard = self._loop.time()
        self._delivered = 0
        self._read: dict[str, StoredEntry] | None = {}
        self._subscription: object | None = None

    async def open(self) -> dict[str, StoredEntry]:
        """Make the consumer; return all entries by name.

        :raises ApiError: the broker refuses.
        :raises BrokerUnavailable: it does not answer, or was lost before all had come.
        """
        stream, broker = self._stream, self._stream.broker
        inbox = broker.new_inbox()
        self._subscription = await broker.subscribe(inbox, self._receive)
        config = {
            "name": self._name,
            "deliver_subject": inbox,
            "deliver_policy": "last_per_subject",
            "filter_subject": f"{stream.prefix}>",
            "ack_policy": "none",
            "max_deliver": 1,
            "mem_storage": True,
            "num_replicas": 1,
            "idle_heartbeat": _HEARTBEAT_SECONDS * _SECOND_NS,
            "inactive_threshold": _INACTIVE_SECONDS * _SECOND_NS,
        }
        made = await broker.api(
            f"CONSUMER.CREATE.{stream.stream}.{self._name}.{stream.prefix}>",
            {"stream_name": stream.stream, "config": config},
            timeout_seconds=1.5,
        )
        # What it has sent before this answer counts as sent, not as pending.
        if not int(made["num_pending"]) + int(made["delivered"]["consumer_seq"]) + self._delivered:
            self._all_read.set_result(None)
        lost = asyncio.ensure_future(self.wait_until_lost())
        try:
            await asyncio.wait((lost, self._all_read), return_when=asyncio.FIRST_COMPLETED)
            if not self._all_read.done():
                raise BrokerUnavailable(lost.result(), was_sent=True)
        finally:
            lost.cancel()
        read, self._read = self._read or {}, None
        return read

    async def wait_until_lost(self) -> str:
        """Wait for the end of the consumer; return the reason."""
        while True:
            left = self._heard + _SILENCE_SECONDS - self._loop.time()
            if left <= 0:
                return "nothing was heard of the consumer"
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(left):
                    return await asyncio.shield(self._lost)

    def lose(self, reason: str) -> None:
        """End the consumer."""
        if not self._lost.done():
            self._lost.set_result(reason)

    async def aclose(self) -> None:
        """Forget the consumer, on the broker as well if it can be reached."""
        self.lose("closed")
        subscription: object = self._subscription
        if subscription is None:
            return
        with contextlib.suppress(nats.errors.Error, OSError):
            await subscription.unsubscribe()  # type: ignore[attr-defined]
        with contextlib.suppress(BrokerUnavailable, ApiError):
            # Its answer does not matter: the broker removes a consumer that nobody listens to.
            await self._stream.broker.publish(
                f"$JS.API.CONSUMER.DELETE.{self._stream.stream}.{self._name}", b""
            )

    async def _receive(self, message: Msg) -> None:
        if self._lost.done():
            return
        self._heard = self._loop.time()
        headers = message.headers or {}
        if not message.reply.startswith("$JS.ACK."):
            if int(headers.get("Nats-Last-Consumer", self._delivered)) != self._delivered:
                self.lose(f"changes behind {self._delivered} of the consumer are missing")
            elif status_of(message) != "100":
                self.lose(f"{status_of(message)} {headers.get('Description', '')}".strip())
            return
        # $JS.ACK.[domain.account.]stream.consumer.delivered.sequence.number.time.pending[.random]
        tokens = message.reply.split(".")
        numbers = tokens[5:9] if len(tokens) == 9 else tokens[7:11]
        revision, number, pending = int(numbers[0]), int(numbers[1]), int(numbers[3])
        if number != self._delivered + 1:
            self.lose(f"change {self._delivered + 1} of the consumer is missing")
            return
        self._delivered = number
        name = message.subject.removeprefix(self._stream.prefix)
        entry = StoredEntry(revision, None if "KV-Operation" in headers else message.data)
        if self._read is None:
            self._change(name, entry)
            return
        self._read[name] = entry
        if pending == 0 and not self._all_read.done():
            self._all_read.set_result(None)
