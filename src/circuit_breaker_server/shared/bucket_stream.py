"""The stream under a bucket: make it, write to it, and ask its leader.

It is a key-value bucket as NATS defines them, so that ``nats kv`` lists it: the stream ``KV_NAME``, with one
message for each subject ``$KV.NAME.>``. A removed entry leaves a marker, which the broker drops a day later.
"""

from __future__ import annotations

import asyncio
import base64
import secrets
from typing import Final, final

import msgspec

from circuit_breaker_server.log.jetstream.broker import Broker, Json, check_api
from circuit_breaker_server.log.jetstream.errors import (
    NOT_FOUND,
    STREAM_EXISTS,
    WRONG_SEQUENCE,
    ApiError,
    BrokerUnavailable,
)
from circuit_breaker_server.log.jetstream.replicas import raise_replicas, replicas_of
from circuit_breaker_server.shared.entries import BucketError, EntryChanged

__all__ = ["BucketState", "BucketStream", "StoredEntry"]

_FORMAT: Final = "1"
_FORMAT_KEY: Final = "circuit-breaker-format"
_DUPLICATE_WINDOW_NS: Final = 120 * 1_000_000_000
_MARKER_SECONDS: Final = 86_400
_ANSWER_SECONDS: Final = 2.0
_REMOVED: Final = {"KV-Operation": "DEL", "Nats-TTL": f"{_MARKER_SECONDS}s"}


@final
class BucketState(msgspec.Struct, frozen=True):
    """The state of the stream, as its leader tells it.

    :ivar created: when it was made; another time is another stream.
    :ivar last_revision: of the newest entry that there ever was.
    """

    created: str
    last_revision: int


@final
class StoredEntry(msgspec.Struct, frozen=True):
    """An entry as the broker has it.

    :ivar sealed: its encrypted value; ``None`` if it was removed.
    """

    revision: int
    sealed: bytes | None


@final
class BucketStream:
    """The stream of a bucket.

    :ivar name: of the bucket.
    :ivar stream: of its stream.
    :ivar prefix: before an entry's name in a subject.
    :ivar where: names it in errors.

    Example::

        stream = BucketStream(broker, "events-shared", patience_seconds=12)
        await stream.prepare(beside="events", replicas=3)
        revision = await stream.put("secret.a", b"…")
    """

    def __init__(self, broker: Broker, name: str, *, patience_seconds: float) -> None:
        """Name it; while the broker is away, a write or a question waits so long."""
        self.broker = broker
        self.name = name
        self.stream = f"KV_{name}"
        self.prefix = f"$KV.{name}."
        self.where = f"{broker.url}, bucket {name}"
        self._patience_seconds = patience_seconds

    async def prepare(self, *, beside: str, replicas: int, makes_bucket: bool = True) -> None:
        """Make the stream where there is none.

        :param beside: the stream of the log. The bucket gets as many replicas as it has, also one that was
            made before the log.
        :param replicas: how many it has where there is no log as yet.
        :param makes_bucket: if false, none is made.
        :raises BucketError: the broker refuses or does not answer, or another program has made the bucket.
        """
        try:
            info = await self._info_or_none(self.stream)
            log = await self._info_or_none(beside)
            wanted = replicas if log is None else replicas_of(log)
            if info is None and makes_bucket:
                info = await self._create(wanted)
        except ApiError as error:
            raise BucketError(f"{self.where}: {_advice(error)}") from error
        except BrokerUnavailable as error:
            raise BucketError(f"{self.where}: {error}") from error
        if info is None:
            raise BucketError(f"{self.where}: there is none; name the log's stream with cluster.stream")
        config = info["config"]
        is_ours = (config.get("metadata") or {}).get(_FORMAT_KEY) == _FORMAT
        if not is_ours or config.get("max_msgs_per_subject") != 1 or not config.get("allow_msg_ttl"):
            raise BucketError(
                f"{self.where}: it was not made by this program, or was changed; choose another name with "
                "cluster.stream"
            )
        if log is not None:
            await raise_replicas(self.broker, info, wanted=wanted, patience_seconds=self._patience_seconds)

    async def _info_or_none(self, stream: str) -> Json | None:
        try:
            return await self.broker.api_patiently(
                f"STREAM.INFO.{stream}", {}, patience_seconds=self._patience_seconds
            )
        except ApiError as error:
            if error.code == NOT_FOUND:
                return None
            raise

    async def _create(self, replicas: int) -> Json:
        config: Json = {
            "name": self.stream,
            "subjects": [f"{self.prefix}>"],
            "storage": "file",
            "retention": "limits",
            "discard": "new",
            "num_replicas": replicas,
            "max_msgs_per_subject": 1,
            "allow_direct": True,
            "allow_rollup_hdrs": True,
            "allow_msg_ttl": True,
            "deny_delete": True,
            "duplicate_window": _DUPLICATE_WINDOW_NS,
            "metadata": {_FORMAT_KEY: _FORMAT},
        }
        try:
            return await self.broker.api_patiently(
                f"STREAM.CREATE.{self.stream}", config, patience_seconds=self._patience_seconds
            )
        except ApiError as error:
            if error.error_code != STREAM_EXISTS:
                raise
        # Another node was faster.
        return await self.broker.api(f"STREAM.INFO.{self.stream}", {})

    async def state(self, *, patience_seconds: float) -> BucketState:
        """Ask the leader for the stream's state.

        :raises ApiError: it refuses.
        :raises BrokerUnavailable: it does not answer.
        """
        info = await self.broker.api_patiently(
            f"STREAM.INFO.{self.stream}", {}, patience_seconds=patience_seconds
        )
        return BucketState(str(info["created"]), int(info["state"]["last_seq"]))

    async def find(self, name: str) -> StoredEntry | None:
        """Ask the leader for an entry; ``None`` if it never was there, or was removed long ago.

        :raises BucketError: the leader does not answer, or refuses.
        """
        try:
            answer = await self.broker.api_patiently(
                f"STREAM.MSG.GET.{self.stream}",
                {"last_by_subj": self.prefix + name},
                patience_seconds=self._patience_seconds,
            )
        except ApiError as error:
            if error.code == NOT_FOUND:
                return None
            raise BucketError(f"{self.where}: cannot be read: {_advice(error)}") from error
        except BrokerUnavailable as error:
            raise BucketError(f"{self.where}: cannot be read now, the broker is away ({error})") from error
        message = answer["message"]
        was_removed = b"KV-Operation:" in base64.b64decode(message.get("hdrs") or "")
        sealed = None if was_removed else base64.b64decode(message.get("data") or "")
        return StoredEntry(int(message["seq"]), sealed)

    async def put(self, name: str, sealed: bytes, *, expected: int | None = None) -> int:
        """Write an entry; return its revision. It is stored when this returns.

        :param expected: the revision that the entry has to have, 0 for none; ``None``: any.
        :raises EntryChanged: it has another one; nothing was written.
        :raises BucketError: it cannot be said to be written; where the broker was away, it may be later.
        """
        more = {} if expected is None else {"Nats-Expected-Last-Subject-Sequence": str(expected)}
        return await self._write(name, sealed, more)

    async def remove(self, name: str) -> int:
        """Remove an entry, which leaves a marker for a day; return the marker's revision.

        :raises BucketError: as :meth:`put`.
        """
        return await self._write(name, b"", _REMOVED)

    async def _write(self, name: str, data: bytes, headers: dict[str, str]) -> int:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._patience_seconds
        # So that what was sent and not acknowledged is not written twice.
        headers = {**headers, "Nats-Msg-Id": secrets.token_hex(16)}
        while True:
            try:
                answer = await self.broker.request(
                    self.prefix + name, data, headers=headers, timeout_seconds=_ANSWER_SECONDS
                )
                return int(check_api(answer.data)["seq"])
            except ApiError as error:
                if error.error_code in WRONG_SEQUENCE:
                    raise EntryChanged(f"{self.where}: another process has changed the entry") from error
                if not error.is_temporary:
                    raise BucketError(f"{self.where}: cannot be written: {_advice(error)}") from error
                reason: Exception = error
            except BrokerUnavailable as error:
                reason = error
            left = deadline - loop.time()
            if left <= 0:
                raise BucketError(
                    f"{self.where}: cannot be written now, the broker is away ({reason})"
                ) from reason
            await self.broker.pause(left)


def _advice(error: ApiError) -> str:
    if error.code == 403:
        return f"a permission is missing: {error.description}; allow the user $JS.API.> and $KV.>"
    return str(error)
