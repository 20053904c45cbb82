"""The two streams of a log: make them, and refuse those that would not keep the log's promises.

``NAME`` holds the records, one message each, under the subjects ``NAME.>``. ``NAME-state`` holds the
snapshots and the last record that was removed, under ``NAME-state.>``. The log's epoch and its format are
metadata of the first one.
"""

from __future__ import annotations

import asyncio
import re
import secrets
from typing import Any, Final, final

import msgspec

from circuit_breaker_server.log.event_log import MAX_DATA_BYTES, LogCorruptError, LogError
from circuit_breaker_server.log.jetstream.broker import Broker, Json
from circuit_breaker_server.log.jetstream.durability import check_sync
from circuit_breaker_server.log.jetstream.envelope import ENVELOPE_BYTES
from circuit_breaker_server.log.jetstream.errors import (
    NOT_FOUND,
    STREAM_EXISTS,
    ApiError,
    BrokerUnavailable,
)
from circuit_breaker_server.log.jetstream.replicas import raise_replicas, replicas_of
from circuit_breaker_server.logs import get_logger

__all__ = ["StreamState", "Streams"]

_FORMAT: Final = "1"
# In place of the format while a log is copied into the streams: no version serves it.
_COPYING: Final = "copying"
_FORMAT_KEY: Final = "circuit-breaker-format"
_EPOCH_KEY: Final = "circuit-breaker-epoch"
_DUPLICATE_WINDOW_NS: Final = 120 * 1_000_000_000
_MIN_MESSAGE_BYTES: Final = MAX_DATA_BYTES + ENVELOPE_BYTES
_JETSTREAM_SECONDS: Final = 2.0
_RAISE_SECONDS: Final = 8.0
_BEHIND_SECONDS: Final = 0.005
_HEARD_NS: Final = 2_500_000_000
"""The leader's replicas answer every second; the others elect another one after 4 seconds without it."""
_OLDEST_SERVER: Final = (2, 12)  # atomic batches
_is_name = re.compile(r"[A-Za-z0-9_-]{1,200}").fullmatch
_is_epoch = re.compile(r"[0-9a-f]{16}").fullmatch

# What has to hold of a stream, and what to say where it does not.
_SHAPE: Final[dict[str, tuple[tuple[object, ...], str]]] = {
    "storage": (("file",), "keeps its messages in memory"),
    "retention": (("limits",), "removes messages that were read"),
    "max_age": ((0, None), "removes messages by their age"),
    "max_msgs": ((-1, 0, None), "removes messages by their number"),
    "max_bytes": ((-1, 0, None), "removes messages by their size"),
    "max_msgs_per_subject": ((-1, 0, None), "removes messages by their number per subject"),
    "no_ack": ((False, None), "does not acknowledge messages"),
    "sealed": ((False, None), "is sealed"),
    "deny_purge": ((False, None), "cannot be trimmed (deny_purge)"),
    "allow_direct": ((True,), "does not allow direct gets (allow_direct)"),
    "mirror": ((None,), "is a mirror"),
    "sources": ((None, []), "copies other streams"),
    "subject_transform": ((None,), "changes the subjects of messages"),
    "allow_msg_ttl": ((False, None), "lets messages expire (allow_msg_ttl)"),
    "persist_mode": (("default", "", None), "acknowledges messages before they are written (persist_mode)"),
}

_log = get_logger("event_log")


@final
class StreamState(msgspec.Struct, frozen=True, kw_only=True):
    """The bounds of the record stream: an empty stream begins after its last offset.

    :ivar epoch: of the stream that is there now.
    :ivar is_led: whether most of its servers have heard of the one that answered within seconds. One that was
        deposed, and does not know it yet, may be behind for as long.
    """

    first_offset: int
    last_offset: int
    epoch: str = ""
    is_led: bool = True


@final
class Streams:
    """The two streams, checked.

    :ivar name: of the record stream.
    :ivar state_name: of the stream with the snapshots.
    :ivar prefix: what stands before a record's subject in a message's.
    :ivar epoch: see the port.
    :ivar replicas: the number of servers that hold the log.
    """

    def __init__(self, broker: Broker, name: str) -> None:
        """Name the streams; :meth:`prepare` makes them.

        :raises LogError: the name does not suit NATS.
        """
        if not _is_name(name):
            raise LogError(f"{name!r} is no name for a stream: use letters, digits, dashes and underscores")
        self._broker = broker
        self.name = name
        self.state_name = f"{name}-state"
        self.prefix = f"{name}."
        self.epoch = ""
        self.replicas = 1

    async def prepare(
        self, *, replicas: int, monitoring_url: str | None = None, makes_streams: bool = True
    ) -> StreamState:
        """Make the streams that are missing, check both, and return the bounds of the log.

        ``replicas`` counts for streams that are made now; none is made without ``makes_streams``.
        ``monitoring_url`` is the server's monitoring port:
        with one replica, it tells whether the server syncs what it acknowledges.

        :raises LogCorruptError: the log has a format that this version cannot read.
        :raises LogError: JetStream is off, a permission is missing, or a stream has the wrong shape.
        """
        where = f"{self._broker.url}, stream {self.name}"
        try:
            self._check_server()
            await self._check_jetstream()
            if not makes_streams:
                await self._require()
            info = await self._ensure(self.name, replicas)
            wanted = replicas_of(info)
            state = await self._ensure(self.state_name, wanted)
            state = await raise_replicas(self._broker, state, wanted=wanted, patience_seconds=_RAISE_SECONDS)
        except ApiError as error:
            raise LogError(f"{where}: {_advice(error)}") from error
        except BrokerUnavailable as error:
            raise LogError(f"{where}: {error}") from error
        self._check_shape(self.name, info["config"])
        self._check_shape(self.state_name, state["config"])
        metadata = info["config"].get("metadata") or {}
        if metadata.get(_FORMAT_KEY) is None or not _is_epoch(metadata.get(_EPOCH_KEY, "")):
            raise LogError(f"{where}: it was not made by this program; choose another name")
        if metadata[_FORMAT_KEY] == _COPYING:
            raise LogError(f"{where}: a copy into it is not finished; run `circuit-breaker log copy` again")
        if metadata[_FORMAT_KEY] != _FORMAT:
            raise LogCorruptError(
                f"{where}: its format is {metadata[_FORMAT_KEY]!r}, this version reads {_FORMAT!r}"
            )
        self.epoch = metadata[_EPOCH_KEY]
        self.replicas = replicas_of(info)
        if not info["config"].get("allow_atomic"):
            raise LogError(
                f"{where}: it takes no atomic batches; set `allow_atomic` of the stream, on nats-server 2.12 "
                "or later"
            )
        if self.replicas == 1:
            await check_sync(monitoring_url, where=where)
        return _state(info)

    async def _require(self) -> None:
        if await self._info(self.name) is None:
            raise LogError(
                f"{self._broker.url}: has no stream {self.name}; name the log's with cluster.stream"
            )

    async def _info(self, name: str) -> Json | None:
        try:
            return await self._broker.api_patiently(f"STREAM.INFO.{name}", {}, patience_seconds=8.0)
        except ApiError as error:
            if error.code == NOT_FOUND:
                return None
            raise

    async def prepare_copy(self, *, replicas: int, epoch: str, first_offset: int) -> StreamState:
        """Make streams for a copy of a log, or find those in which one was begun; return their bounds.

        Streams that are empty are made anew.

        :raises LogError: there is another log, or the servers cannot be used.
        """
        where = f"{self._broker.url}, stream {self.name}"
        try:
            self._check_server()
            await self._check_jetstream()
            found = await self._info(self.name)
            if found is not None and int(found["state"]["last_seq"]) == 0:
                await self._delete_streams()
                found = None
            if found is None:
                metadata = {_FORMAT_KEY: _COPYING, _EPOCH_KEY: epoch}
                found = await self._create(self.name, replicas, metadata, first_offset=first_offset)
            metadata = found["config"].get("metadata") or {}
            if metadata.get(_FORMAT_KEY) != _COPYING or metadata.get(_EPOCH_KEY) != epoch:
                raise LogError(
                    f"{where}: is not empty, and not the beginning of a copy of this log; name another one "
                    "with cluster.stream"
                )
            self._check_shape(self.name, found["config"])
            state = await self._ensure(self.state_name, replicas_of(found))
            self._check_shape(self.state_name, state["config"])
        except ApiError as error:
            raise LogError(f"{where}: {_advice(error)}") from error
        except BrokerUnavailable as error:
            raise LogError(f"{where}: {error}") from error
        self.epoch = epoch
        self.replicas = replicas_of(found)
        return _state(found)

    async def _delete_streams(self) -> None:
        await self._broker.api(f"STREAM.DELETE.{self.name}", {})
        if await self._info(self.state_name) is not None:
            await self._broker.api(f"STREAM.DELETE.{self.state_name}", {})

    async def finish_copy(self) -> None:
        """Let the log be served.

        :raises ApiError: the leader refuses.
        :raises BrokerUnavailable: it does not answer.
        """
        info = await self._broker.api_patiently(f"STREAM.INFO.{self.name}", {}, patience_seconds=8.0)
        config = info["config"]
        config["metadata"] = {**config["metadata"], _FORMAT_KEY: _FORMAT}
        await self._broker.api_patiently(f"STREAM.UPDATE.{self.name}", config, patience_seconds=10.0)

    async def state(self, *, patience_seconds: float) -> StreamState:
        """Ask the leader for the bounds of the log.

        :raises ApiError: it refuses.
        :raises BrokerUnavailable: it does not answer.
        """
        info = await self._broker.api_patiently(
            f"STREAM.INFO.{self.name}", {}, patience_seconds=patience_seconds
        )
        return _state(info)

    async def message_from_leader(
        self, stream: str, query: dict[str, object], *, patience_seconds: float
    ) -> Json | None:
        """Ask the leader of a stream for one message; ``None`` means that the leader has none.

        The leader may be some milliseconds behind another replica (:meth:`message_of_records`).
        ``query`` is ``seq``, ``last_by_subj``, or ``next_by_subj`` with ``seq``.

        :raises ApiError: it refuses.
        :raises BrokerUnavailable: it does not answer.
        """
        try:
            answer = await self._broker.api_patiently(
                f"STREAM.MSG.GET.{stream}", query, patience_seconds=patience_seconds
            )
        except ApiError as error:
            if error.code == NOT_FOUND:
                return None
            raise
        message: Json = answer["message"]
        return message

    async def message_of_records(
        self, query: dict[str, object], *, known: int, patience_seconds: float
    ) -> Json | None:
        """Ask the leader of the record stream for one message; ``None`` means that there is none.

        A replica may deliver a record some milliseconds before the leader has it. That the leader has none is
        believed only when it has come to all that was delivered.

        :param query: as :meth:`message_from_leader`.
        :param known: an offset that some replica is known to have.
        :raises ApiError: it refuses.
        :raises BrokerUnavailable: it does not answer, or is behind for all that time.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + patience_seconds
        is_there = not known
        while True:
            message = await self.message_from_leader(self.name, query, patience_seconds=patience_seconds)
            if message is not None or is_there:
                return message
            is_there = (await self.state(patience_seconds=patience_seconds)).last_offset >= known
            if not is_there:
                if loop.time() >= deadline:
                    raise BrokerUnavailable(f"the leader of {self.name} is behind", was_sent=True)
                await asyncio.sleep(_BEHIND_SECONDS)

    def _check_server(self) -> None:
        version = self._broker.server_version
        if version < _OLDEST_SERVER:
            raise LogError(f"{self._broker.url}: nats-server {version[0]}.{version[1]} is too old, use 2.12")
        largest = self._broker.max_payload_bytes
        if largest < _MIN_MESSAGE_BYTES:
            raise LogError(
                f"{self._broker.url}: the server takes messages of {largest} bytes at most, a record has up "
                f"to {_MIN_MESSAGE_BYTES}; set `max_payload: 8MB` in its configuration"
            )

    async def _check_jetstream(self) -> None:
        try:
            # A server that has just started answers a moment later.
            await self._broker.api_patiently("INFO", {}, patience_seconds=_JETSTREAM_SECONDS)
        except BrokerUnavailable as error:
            if error.was_sent:
                raise
            raise LogError(
                f"{self._broker.url}: JetStream is off; add a `jetstream` block to the server's configuration"
            ) from error

    async def _ensure(self, name: str, replicas: int) -> Json:
        info = await self._info(name)
        if info is not None:
            return info
        metadata = {_FORMAT_KEY: _FORMAT, _EPOCH_KEY: secrets.token_hex(8)}
        made = await self._create(name, replicas, metadata)
        if name == self.name:
            _log.warning(
                "event_log_made",
                stream=f"{self._broker.url}, stream {name}",
                replicas=replicas_of(made),
                advice="it is new and empty; if there was to be one, check cluster.stream",
            )
        return made

    async def _create(
        self, name: str, replicas: int, metadata: dict[str, str], *, first_offset: int = 1
    ) -> Json:
        config: Json = {
            "name": name,
            "subjects": [f"{name}.>"],
            "storage": "file",
            "retention": "limits",
            "discard": "new",
            "num_replicas": replicas,
            "allow_direct": True,
            "allow_atomic": True,
            "duplicate_window": _DUPLICATE_WINDOW_NS,
            "metadata": metadata,
        }
        if first_offset > 1:
            config["first_seq"] = first_offset
        try:
            # A cluster that has just started has no leader yet; making the same stream twice makes one.
            return await self._broker.api_patiently(f"STREAM.CREATE.{name}", config, patience_seconds=10.0)
        except ApiError as error:
            if error.error_code != STREAM_EXISTS:
                raise
        # Another node was faster: its epoch counts.
        return await self._broker.api(f"STREAM.INFO.{name}", {})

    def _check_shape(self, name: str, config: dict[str, Any]) -> None:
        where = f"{self._broker.url}, stream {name}"
        if config.get("subjects") != [f"{name}.>"]:
            raise LogError(
                f"{where}: it takes the subjects {config.get('subjects')}, not {name}.>; choose another name"
            )
        for field, (allowed, complaint) in _SHAPE.items():
            if config.get(field) not in allowed:
                raise LogError(f"{where}: it {complaint}; change its configuration or choose another name")
        largest = config.get("max_msg_size", -1)
        if 0 <= largest < _MIN_MESSAGE_BYTES:
            raise LogError(
                f"{where}: it takes messages of {largest} bytes at most, a record has up to "
                f"{_MIN_MESSAGE_BYTES}; set max_msg_size to -1"
            )


def _state(info: Json) -> StreamState:
    state = info["state"]
    last = int(state["last_seq"])
    first = int(state["first_seq"]) if state["messages"] else last + 1
    epoch = (info["config"].get("metadata") or {}).get(_EPOCH_KEY, "")
    replicas = (info.get("cluster") or {}).get("replicas") or []
    heard = 1 + sum(int(each.get("active", 0)) < _HEARD_NS for each in replicas)
    return StreamState(
        first_offset=max(1, first),
        last_offset=last,
        epoch=epoch,
        is_led=2 * heard > 1 + len(replicas),
    )


def _advice(error: ApiError) -> str:
    if error.code == 403:
        return (
            f"a permission is missing: {error.description}; allow the user $JS.API.> and the log's subjects"
        )
    if error.error_code in (10039, 10035):
        return f"JetStream is off for this account: {error.description}"
    return str(error)
