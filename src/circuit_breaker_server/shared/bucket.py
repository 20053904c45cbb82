"""The bucket of a cluster: small encrypted entries that all nodes share, with a local copy."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final, Self, final

from circuit_breaker_server.log.jetstream.broker import Broker
from circuit_breaker_server.log.jetstream.credentials import read_credentials
from circuit_breaker_server.log.jetstream.errors import ApiError, BrokerUnavailable
from circuit_breaker_server.logs import get_logger
from circuit_breaker_server.settings.cluster import ClusterSettings
from circuit_breaker_server.shared.bucket_stream import BucketStream, StoredEntry
from circuit_breaker_server.shared.bucket_watch import BucketWatch
from circuit_breaker_server.shared.entries import (
    BucketError,
    Entry,
    EntryChanged,
    Sealing,
    token_of,
    unescaped,
)
from circuit_breaker_server.storage.cluster_key import ClusterKey

__all__ = ["Bucket"]

logger = get_logger("bucket")

_CHECK: Final = "check"
_CHECK_ID: Final = "cluster-key"


@final
class Bucket:
    """Entries by kind and id, encrypted under the cluster key.

    Reading is done from a local copy, which a watch keeps in step: a write of another node is in it a moment
    later. :meth:`find` asks the broker.

    :ivar name: of the bucket.
    :ivar where: names the bucket in errors, with its brokers.

    Example::

        bucket = await Bucket.open(settings.cluster, cluster_key)
        await bucket.put("secret", "mcp-client-1", b"…")
        bucket.get("secret", "mcp-client-1")
        await bucket.aclose()
    """

    def __init__(self, broker: Broker, stream: BucketStream, sealing: Sealing) -> None:
        """Hold an open connection; :meth:`open` is the way in."""
        self._broker = broker
        self._stream = stream
        self._sealing = sealing
        self._entries: dict[str, Entry] = {}
        self._watch = BucketWatch(stream, self)
        self._callbacks: dict[object, tuple[str, Callable[[], object]]] = {}
        self.name = stream.name
        self.where = stream.where

    @classmethod
    async def open(cls, settings: ClusterSettings, key: ClusterKey, *, makes_bucket: bool = True) -> Self:
        """Connect, make the bucket where there is none, and read all of it.

        Its name is that of the log's stream with ``-shared`` behind it.

        :param makes_bucket: if false, a bucket that is missing is an error.
        :raises BucketError: it cannot be used, or was encrypted under another key.
        :raises LogError: the brokers cannot be reached.
        """
        broker = await Broker.open(
            ",".join(settings.urls),
            timeout_seconds=settings.connect_seconds,
            credentials=read_credentials(settings),
        )
        stream = BucketStream(
            broker, f"{settings.stream}-shared", patience_seconds=settings.write_patience_seconds
        )
        bucket = cls(broker, stream, Sealing(key.bucket_keys))
        try:
            await stream.prepare(
                beside=settings.stream, replicas=settings.replicas, makes_bucket=makes_bucket
            )
            await bucket._check_key()
            try:
                await bucket._watch.start(timeout_seconds=settings.connect_seconds)
            except (ApiError, BrokerUnavailable) as error:
                raise BucketError(f"{stream.where}: cannot be read: {error}") from error
        except BaseException:
            await bucket.aclose()
            raise
        return bucket

    async def _check_key(self) -> None:
        name = _name(_CHECK, _CHECK_ID)
        found = await self._stream.find(name)
        if found is None:
            try:
                await self._stream.put(name, self._sealing.seal(name, b""), expected=0)
            except EntryChanged:
                found = await self._stream.find(name)
            else:
                return
        if found is None or found.sealed is None or self._sealing.unseal(name, found.sealed) is None:
            raise BucketError(
                f"{self.where}: the bucket was encrypted under another key; give this server the cluster key "
                "of the others (cluster.key_file)"
            )

    @property
    def is_following(self) -> bool:
        """Whether the local copy is kept in step now; false while the broker is away."""
        return self._watch.is_following

    @property
    def problem(self) -> str | None:
        """Why changes of the bucket are not seen now, in words; ``None`` while they are."""
        if self.is_following:
            return None
        return f"the bucket {self.name} is not followed: keys that are revoked now are not seen"

    def get(self, kind: str, id: str) -> bytes | None:  # noqa: A002 (what records call it)
        """Return a value of the local copy; ``None`` if there is none."""
        entry = self._entries.get(_name(kind, id))
        return None if entry is None else entry.value

    def items(self, kind: str) -> dict[str, bytes]:
        """Return all values of a kind, by id, of the local copy."""
        return {id_: value for id_, value in self._of_kind(kind) if value is not None}

    def _of_kind(self, kind: str) -> Iterator[tuple[str, bytes | None]]:
        head = f"{kind}."
        for name, entry in self._entries.items():
            if name.startswith(head):
                yield unescaped(name[len(head) :]), entry.value

    async def find(self, kind: str, id: str) -> Entry | None:  # noqa: A002 (as above)
        """Ask the broker's leader for an entry; ``None`` if it was never there, or was removed long ago.

        :raises BucketError: the broker does not answer, or refuses.
        """
        name = _name(kind, id)
        found = await self._stream.find(name)
        if found is None:
            return None
        self.change(name, found)
        # The newer one, where the watch was faster.
        return self._entries[name]

    async def put(
        self,
        kind: str,
        id: str,  # noqa: A002 (as above)
        value: bytes,
        *,
        expected: int | None = None,
    ) -> None:
        """Write an entry; when this returns the broker has stored it, and the local copy has it.

        :param expected: the revision that the entry has to have, 0 for none; ``None``: any.
        :raises EntryChanged: it has another one.
        :raises BucketError: it cannot be said to be written; where the broker was away, it may be later.
        """
        name = _name(kind, id)
        sealed = self._sealing.seal(name, value)
        self.change(name, StoredEntry(await self._stream.put(name, sealed, expected=expected), sealed))

    async def remove(self, kind: str, id: str) -> None:  # noqa: A002 (as above)
        """Remove an entry, whether it is there or not; the broker has stored that when this returns.

        :raises BucketError: as :meth:`put`.
        """
        name = _name(kind, id)
        self.change(name, StoredEntry(await self._stream.remove(name), None))

    async def reseal(self) -> int:
        """Encrypt with the first key what another one has encrypted; return how many entries.

        A server that has not got the first key cannot read them any more.

        :raises BucketError: as :meth:`put`, or an entry cannot be decrypted; those before it are done.
        """
        count = 0
        for name in sorted(self._entries):
            count += await self._reseal(name)
        return count

    async def _reseal(self, name: str) -> bool:
        while True:
            stored = await self._stream.find(name)
            if stored is None or stored.sealed is None or self._sealing.is_of_first_key(stored.sealed):
                return False
            value = self._sealing.unseal(name, stored.sealed)
            if value is None:
                raise BucketError(f"{self.where}: {name} was encrypted under a key that is not in the file")
            sealed = self._sealing.seal(name, value)
            try:
                revision = await self._stream.put(name, sealed, expected=stored.revision)
            except EntryChanged:
                continue  # somebody wrote it meanwhile, perhaps with the old key
            self.change(name, StoredEntry(revision, sealed))
            return True

    def on_change(self, kind: str, callback: Callable[[], object]) -> Callable[[], None]:
        """Call whenever entries of a kind have changed in the local copy, in a turn of the loop.

        :returns: what ends the calls (idempotent).
        """
        place = object()
        self._callbacks[place] = f"{kind}.", callback

        def end() -> None:
            self._callbacks.pop(place, None)

        return end

    def replace(self, entries: dict[str, StoredEntry], *, upto: int, is_same: bool) -> None:
        """See :class:`~circuit_breaker_server.shared.bucket_watch.Copy`."""
        before = self._entries
        known = before if is_same else {}
        kept = {name: entry for name, entry in known.items() if entry.revision > upto}
        for name, stored in entries.items():
            if name not in kept or kept[name].revision < stored.revision:
                entry = known.get(name)
                is_known = entry is not None and entry.revision == stored.revision
                kept[name] = entry if entry is not None and is_known else self._opened(name, stored)
        self._entries = kept
        self._tell({name for name in {*before, *kept} if before.get(name) != kept.get(name)})

    def change(self, name: str, entry: StoredEntry) -> None:
        """See :class:`~circuit_breaker_server.shared.bucket_watch.Copy`; what is older changes nothing."""
        known = self._entries.get(name)
        if known is None or known.revision < entry.revision:
            self._entries[name] = self._opened(name, entry)
            self._tell({name})

    def _opened(self, name: str, stored: StoredEntry) -> Entry:
        value = None if stored.sealed is None else self._sealing.unseal(name, stored.sealed)
        if value is None and stored.sealed is not None:
            logger.error("bucket_entry_refused", bucket=self._stream.name, entry=name, why="another key")
        return Entry(stored.revision, value)

    def _tell(self, names: set[str]) -> None:
        for head, callback in list(self._callbacks.values()):
            if any(name.startswith(head) for name in names):
                try:
                    callback()
                except Exception as error:  # the next one may end a revoked stream
                    logger.error("listener_failed", error=type(error).__name__, exc_info=True)

    async def aclose(self) -> None:
        """Close the connection; the local copy stays."""
        await self._watch.aclose()
        await self._broker.aclose()

    def __repr__(self) -> str:
        return f"<Bucket {self._stream.name} {len(self._entries)} entries>"


def _name(kind: str, id_: str) -> str:
    return f"{kind}.{token_of(id_)}"
