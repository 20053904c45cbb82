"""The connection to the NATS servers: requests with one answer, with many answers, and their failures."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import Any, Final, TypeAlias, final

import nats
import nats.errors
from nats.aio.client import Client as NatsClient
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from circuit_breaker_server.log.event_log import LogError
from circuit_breaker_server.log.jetstream.credentials import NO_CREDENTIALS, Credentials
from circuit_breaker_server.log.jetstream.errors import ApiError, BrokerUnavailable
from circuit_breaker_server.logs import get_logger

__all__ = ["Broker", "Json", "check_api", "status_of", "try_seconds"]

logger = get_logger("event_log")

_API: Final = "$JS.API"
_RECONNECT_SECONDS: Final = 0.1
_CONNECT_SECONDS: Final = 2
_PING_SECONDS: Final = 5
_NO_RESPONDERS: Final = "503"
# Of answers that were received and not looked at yet; what is beyond it is lost and asked for again.
_PENDING_BYTES: Final = 256 * 1024 * 1024
_RETRY_SECONDS: Final = 0.1
# A request without a leader is dropped, not answered: this comes on top of the time that an election takes.
_SHORT_TRY_SECONDS: Final = 0.5
# An election is over by then: where answers still do not come, asking again makes them no faster.
_SHORT_TRIES: Final = 20
_LONG_TRY_SECONDS: Final = 5.0

Json: TypeAlias = "dict[str, Any]"
"""An object of JetStream's API."""


def try_seconds(tries: int) -> float:
    """Return how long an answer is waited for, at the first try, the second one, and so on."""
    return _SHORT_TRY_SECONDS if tries <= _SHORT_TRIES else _LONG_TRY_SECONDS


def status_of(message: Msg) -> str | None:
    """Return the status of a message that carries no record, such as 404 or 408."""
    return message.headers.get("Status") if message.headers else None


@final
class _Client(NatsClient):
    """The client of nats-py, which names our key and insists on TLS where it is wanted."""

    def __init__(self, credentials: Credentials) -> None:
        super().__init__()
        self._credentials = credentials
        if credentials.key is not None and credentials.jwt is None:
            # nats-py 2.16 sets it from files only, and needs the package nkeys for it.
            self._public_nkey = credentials.key.public

    async def close_transport(self) -> None:
        """Close the socket that nats-py 2.16 leaves open where connecting was cancelled."""
        transport = self._transport
        if transport is not None:
            transport.close()  # type: ignore[no-untyped-call]
            await asyncio.sleep(0)

    def _connect_command(self) -> bytes:
        # nats-py would sign in without TLS at a server that offers none.
        if self._credentials.requires_tls and not self._server_info.get("tls_required"):
            raise nats.errors.Error("the server offers no TLS, and the settings ask for it")
        command: bytes = super()._connect_command()
        return command


@final
class Broker:
    """One connection, made again whenever it is lost.

    Example::

        broker = await Broker.open("nats://127.0.0.1:4222", timeout_seconds=10)
        info = await broker.api("STREAM.INFO.events", {})
        await broker.aclose()

    :ivar url: the servers, without passwords, for error messages.
    """

    def __init__(self, servers: list[str], credentials: Credentials = NO_CREDENTIALS) -> None:
        """Name the servers; use :meth:`open`."""
        self._credentials = credentials
        self.url = ", ".join(server.rpartition("@")[2] for server in servers)
        self._servers = servers
        self._client = _Client(credentials)
        self._opening: asyncio.Timeout | None = None
        self._refusals = 0
        self._inbox = ""
        self._tokens = itertools.count()
        self._answers: dict[str, asyncio.Queue[Msg | Exception]] = {}
        self._connected = asyncio.Event()
        self._on_reconnect: list[Callable[[], None]] = []
        self._last_error: Exception | None = None

    @classmethod
    async def open(
        cls, url: str, *, timeout_seconds: float, credentials: Credentials = NO_CREDENTIALS
    ) -> Broker:
        """Connect to one of the servers of a URL; several URLs are separated by commas.

        :raises LogError: none answers in time, or the user is refused.
        """
        servers = [part.strip() for part in url.split(",") if part.strip()]
        broker = cls(servers, credentials)
        try:
            async with asyncio.timeout(timeout_seconds) as broker._opening:
                await broker._connect()
        except (nats.errors.Error, OSError, TimeoutError, ValueError) as error:
            await broker.aclose()
            reason = str(broker._last_error or error) or "no answer in time"
            if broker._refusals:
                reason = f"the broker refuses the credentials ({reason}); check cluster.user and its files"
            raise LogError(f"{broker.url}: cannot connect to NATS: {reason}") from error
        except BaseException:
            await broker.aclose()
            raise
        return broker

    async def _connect(self) -> None:
        credentials = self._credentials
        key, jwt = credentials.key, credentials.jwt
        await self._client.connect(
            self._servers,
            user=credentials.user,
            password=credentials.password,
            token=credentials.token,
            signature_cb=None if key is None else lambda nonce: key.sign(nonce.encode()),
            user_jwt_cb=None if jwt is None else jwt.encode,
            tls=credentials.tls,
            name="circuit-breaker",
            max_reconnect_attempts=-1,
            reconnect_time_wait=_RECONNECT_SECONDS,  # type: ignore[arg-type]
            connect_timeout=_CONNECT_SECONDS,
            ping_interval=_PING_SECONDS,
            # Nothing is kept to be sent after a reconnect: each request knows whether it was sent.
            pending_size=0,
            allow_reconnect=True,
            disconnected_cb=self._disconnected,
            reconnected_cb=self._reconnected,
            error_cb=self._failed,
        )
        self._inbox = self._client.new_inbox()
        await self.subscribe(f"{self._inbox}.*", self._answered)
        self._connected.set()
        self._opening = None

    @property
    def max_payload_bytes(self) -> int:
        """The largest message that the server takes, headers included."""
        return self._client.max_payload

    @property
    def server_version(self) -> tuple[int, int]:
        """The server's version: major, minor."""
        version = self._client.connected_server_version
        return int(version.major), int(version.minor)

    @property
    def is_connected(self) -> bool:
        """Whether there is a connection now."""
        return self._connected.is_set()

    async def wait_until_connected(self) -> None:
        """Wait for a connection. The caller limits the time."""
        await self._connected.wait()

    def on_reconnect(self, callback: Callable[[], None]) -> None:
        """Call back after each reconnect, when subscriptions are in place again."""
        self._on_reconnect.append(callback)

    async def subscribe(self, subject: str, callback: Callable[[Msg], Awaitable[None]]) -> Subscription:
        """Subscribe to a subject of core NATS."""
        return await self._client.subscribe(
            subject, cb=callback, pending_msgs_limit=0, pending_bytes_limit=_PENDING_BYTES
        )

    def new_inbox(self) -> str:
        """Make a subject for answers."""
        return str(self._client.new_inbox())

    async def publish(
        self, subject: str, data: bytes, *, headers: dict[str, str] | None = None, reply: str = ""
    ) -> None:
        """Send a message.

        :raises BrokerUnavailable: it was not sent.
        """
        if not self._connected.is_set():
            raise BrokerUnavailable("not connected", was_sent=False)
        try:
            await self._client.publish(subject, data, reply=reply, headers=headers)
        except nats.errors.MaxPayloadError as error:
            raise ApiError(400, 10054, "message size exceeds maximum allowed") from error
        except (nats.errors.Error, OSError) as error:
            raise BrokerUnavailable(str(error) or type(error).__name__, was_sent=False) from error

    async def request(
        self,
        subject: str,
        data: bytes = b"",
        *,
        headers: dict[str, str] | None = None,
        timeout_seconds: float,
    ) -> Msg:
        """Send a message and return the first answer.

        :raises BrokerUnavailable: there is none, or the request was not sent.
        """
        with self.replies() as (reply, answers):
            await self.publish(subject, data, headers=headers, reply=reply)
            return await self.next_reply(answers, timeout_seconds=timeout_seconds, subject=subject)

    @contextlib.contextmanager
    def replies(self) -> Iterator[tuple[str, asyncio.Queue[Msg | Exception]]]:
        """Make a subject for answers, and the queue in which they arrive until the block ends."""
        token = str(next(self._tokens))
        answers: asyncio.Queue[Msg | Exception] = asyncio.Queue()
        self._answers[token] = answers
        try:
            yield f"{self._inbox}.{token}", answers
        finally:
            del self._answers[token]

    async def next_reply(
        self, answers: asyncio.Queue[Msg | Exception], *, timeout_seconds: float, subject: str
    ) -> Msg:
        """Wait for an answer to a message that was sent.

        :raises BrokerUnavailable: it does not come.
        """
        try:
            async with asyncio.timeout(timeout_seconds):
                answer = await answers.get()
        except TimeoutError as error:
            raise BrokerUnavailable(f"{subject}: no answer in time", was_sent=True) from error
        if isinstance(answer, Exception):
            raise answer
        if status_of(answer) == _NO_RESPONDERS and not answer.data:
            raise BrokerUnavailable(f"{subject}: nobody answers, JetStream is not ready", was_sent=False)
        return answer

    async def api(self, name: str, body: Mapping[str, object], *, timeout_seconds: float = 5.0) -> Json:
        """Call JetStream's API.

        :raises ApiError: it refuses.
        :raises BrokerUnavailable: it does not answer.
        """
        message = await self.request(
            f"{_API}.{name}", json.dumps(body).encode(), timeout_seconds=timeout_seconds
        )
        return check_api(message.data)

    async def api_patiently(self, name: str, body: Mapping[str, object], *, patience_seconds: float) -> Json:
        """Call JetStream's API, again and again while the broker is away. The call must bear repetition.

        :raises ApiError: it refuses.
        :raises BrokerUnavailable: it does not answer in all this time.
        """
        deadline = asyncio.get_running_loop().time() + patience_seconds
        tries = 0
        while True:
            tries += 1
            try:
                return await self.api(name, body, timeout_seconds=try_seconds(tries))
            except (ApiError, BrokerUnavailable) as error:
                left = deadline - asyncio.get_running_loop().time()
                if isinstance(error, ApiError) and not error.is_temporary:
                    raise
                if left <= 0:
                    if isinstance(error, BrokerUnavailable):
                        raise
                    raise BrokerUnavailable(str(error), was_sent=True) from error
            await self.pause(left)

    async def pause(self, longest_seconds: float) -> None:
        """Wait a moment before a request is repeated: for the connection where there is none."""
        if self._connected.is_set():
            await asyncio.sleep(min(_RETRY_SECONDS, longest_seconds))
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(longest_seconds):
                await self._connected.wait()

    async def aclose(self) -> None:
        """Close the connection."""
        self._connected.clear()
        self._fail_all(BrokerUnavailable("the log is closed", was_sent=True))
        await self._end_reconnecting()
        with contextlib.suppress(nats.errors.Error, OSError):
            await self._client.close()
        await self._end_reconnecting()
        await self._client.close_transport()

    async def _end_reconnecting(self) -> None:
        # nats-py 2.16 cancels this task and does not wait for it, and the task can swallow the cancellation.
        task: asyncio.Task[None] | None = getattr(self._client, "_reconnection_task", None)
        while task is not None and not task.done():
            task.cancel()
            await asyncio.wait([task], timeout=_RETRY_SECONDS)

    async def _answered(self, message: Msg) -> None:
        answers = self._answers.get(message.subject.rpartition(".")[2])
        if answers is not None:  # else its caller has given up
            answers.put_nowait(message)

    async def _disconnected(self) -> None:
        self._connected.clear()
        self._fail_all(BrokerUnavailable("the connection to the broker was lost", was_sent=True))

    async def _reconnected(self) -> None:
        self._connected.set()
        for callback in self._on_reconnect:
            callback()

    async def _failed(self, error: Exception) -> None:
        self._last_error = error
        text = str(error)
        if self._opening is not None and "authorization" in text.lower():
            self._refusals += 1
            if self._refusals >= len(self._servers):
                # Trying again would give the same answer until the time is up.
                self._opening.reschedule(asyncio.get_running_loop().time())
        if "permissions violation" in text.lower():
            # The server names the subject, not the request: the requests under way cannot wait for answers.
            self._fail_all(ApiError(403, 0, text))
        elif isinstance(error, nats.errors.SlowConsumerError):
            logger.warning("broker_messages_dropped", advice="they are asked for again")
        else:
            logger.debug("broker_connection_failed", error=repr(error))

    def _fail_all(self, error: Exception) -> None:
        for answers in self._answers.values():
            answers.put_nowait(error)


def check_api(data: bytes) -> Json:
    """Decode an answer of JetStream's API, or an acknowledgement.

    :raises ApiError: it is a refusal.
    """
    answer: Json = json.loads(data)
    error = answer.get("error")
    if error is not None:
        raise ApiError(
            int(error.get("code", 0)), int(error.get("err_code", 0)), str(error.get("description", ""))
        )
    return answer
