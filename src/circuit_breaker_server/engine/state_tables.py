"""State as tables: entries by key, changed by records, saved in snapshots."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import ClassVar, Generic, Protocol, TypeVar, final

import msgspec

from circuit_breaker_server.log.event_log import LogCorruptError, Record, Snapshot, SnapshotEntry

__all__ = ["ENTRY_UPCASTERS", "ENTRY_VERSION", "Entry", "Part", "Table", "TablePart"]

ENTRY_VERSION = 1

ENTRY_UPCASTERS: dict[tuple[str, int], Callable[[dict[str, object]], dict[str, object]]] = {}
"""By table and version: makes the entry of the next version of it."""


class Part(Protocol):
    """A domain's share of the state.

    :ivar tokens: first tokens of the subjects of the records it folds.
    :ivar prefixes: what its keys in a snapshot begin with, before the first slash.
    """

    @property
    def tokens(self) -> frozenset[str]: ...

    @property
    def prefixes(self) -> frozenset[str]: ...

    def apply(self, record: Record) -> None:
        """Apply the next record.

        :raises LogCorruptError: the record cannot be read, or changes what is not there.
        """
        ...

    def count_changes(self) -> int:
        """Return how many entries have changed since changes were last taken."""
        ...

    def take_changes(self) -> tuple[int, list[SnapshotEntry]]:
        """Return the last record applied, and what changed since changes were last taken."""
        ...

    def give_back(self, changes: Sequence[SnapshotEntry]) -> None:
        """Take back changes that could not be saved, for the next time."""
        ...

    def restore(self, snapshot: Snapshot) -> None:
        """Begin with a snapshot instead of nothing.

        :raises LogCorruptError: an entry is of a newer version, or cannot be read.
        """
        ...


class Entry(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The base of all entries of tables.

    :ivar created: the offset of the record that made the entry; tables keep this order.
    """

    v: int = ENTRY_VERSION
    created: int


E = TypeVar("E", bound=Entry)

_ENCODER = msgspec.json.Encoder()


@final
class Table(Generic[E]):
    """Entries by key, in the order of their creation.

    Example::

        table = Table("provider", ProviderEntry)
        table.put("p1", entry)
    """

    def __init__(self, name: str, kind: type[E]) -> None:
        self.name = name
        self._kind = kind
        self._decoder = msgspec.json.Decoder(kind)
        self._entries: dict[str, E] = {}
        self._changed: dict[str, None] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __contains__(self, key: str) -> bool:
        return key in self._entries

    def get(self, key: str) -> E | None:
        """Return an entry."""
        return self._entries.get(key)

    def values(self) -> list[E]:
        """Return all entries."""
        return list(self._entries.values())

    def items(self) -> list[tuple[str, E]]:
        """Return all keys with their entries."""
        return list(self._entries.items())

    def put(self, key: str, entry: E) -> None:
        """Add or replace an entry."""
        self._entries[key] = entry
        self._changed[key] = None

    def remove(self, key: str) -> None:
        """Remove an entry, if it is there."""
        if self._entries.pop(key, None) is not None:
            self._changed[key] = None

    def count_changes(self) -> int:
        """Return how many entries have changed since changes were last taken."""
        return len(self._changed)

    def take_changes(self) -> list[SnapshotEntry]:
        """Return what changed since it was last taken."""
        changed, self._changed = self._changed, {}
        return [
            SnapshotEntry(key=f"{self.name}/{key}", data=None if entry is None else _ENCODER.encode(entry))
            for key in changed
            for entry in (self._entries.get(key),)
        ]

    def touch(self, key: str) -> None:
        """Note a change that could not be saved."""
        self._changed[key] = None

    def load(self, entries: Sequence[tuple[str, bytes]]) -> None:
        """Take the entries of a snapshot.

        :raises LogCorruptError: one cannot be read.
        """
        found = [(key, self._decode(key, data)) for key, data in entries]
        self._entries = dict(sorted(found, key=lambda item: item[1].created))

    def _decode(self, key: str, data: bytes) -> E:
        where = f"snapshot entry {self.name}/{key}"
        try:
            entry = self._decoder.decode(data)
            if entry.v == ENTRY_VERSION:
                return entry
        except msgspec.DecodeError as error:
            problem: Exception | None = error
        else:
            problem = None
        try:
            old = msgspec.json.decode(data, type=dict[str, object])
            version = old.get("v", ENTRY_VERSION)
            if not isinstance(version, int) or version > ENTRY_VERSION:
                raise LogCorruptError(
                    f"{where} has version {version}, this program reads up to {ENTRY_VERSION}; "
                    "run the newer program"
                )
            if version == ENTRY_VERSION:
                raise LogCorruptError(f"{where} cannot be read: {problem}")
            for step in range(version, ENTRY_VERSION):
                old = {**ENTRY_UPCASTERS[self.name, step](old), "v": step + 1}
            return msgspec.convert(old, self._kind)
        except (msgspec.DecodeError, msgspec.ValidationError, KeyError) as error:
            raise LogCorruptError(f"{where} cannot be read: {error}") from error


class _AnyTable(Protocol):
    """A table, whatever its entries."""

    name: str

    def count_changes(self) -> int: ...

    def take_changes(self) -> list[SnapshotEntry]: ...

    def touch(self, key: str) -> None: ...

    def load(self, entries: Sequence[tuple[str, bytes]]) -> None: ...


class TablePart:
    """A part whose state is tables only; a domain adds ``apply``."""

    tokens: ClassVar[frozenset[str]]

    def __init__(self, *tables: _AnyTable) -> None:
        self._tables = {table.name: table for table in tables}
        self.prefixes = frozenset(self._tables)

    def count_changes(self) -> int:
        """See :class:`Part`."""
        return sum([table.count_changes() for table in self._tables.values()])

    def take_changes(self) -> tuple[int, list[SnapshotEntry]]:
        """See :class:`Part`; the offset is not known here."""
        return 0, [change for table in self._tables.values() for change in table.take_changes()]

    def give_back(self, changes: Sequence[SnapshotEntry]) -> None:
        """See :class:`Part`."""
        for change in changes:
            name, _, key = change.key.partition("/")
            self._tables[name].touch(key)

    def restore(self, snapshot: Snapshot) -> None:
        """See :class:`Part`."""
        by_table: dict[str, list[tuple[str, bytes]]] = {}
        for key, data in snapshot.entries.items():
            name, _, rest = key.partition("/")
            by_table.setdefault(name, []).append((rest, data))
        for name, entries in by_table.items():
            self._tables[name].load(entries)
