"""The state of all workflows and resources: a fold of the log's records, saved as snapshots.

Everything is held as the bytes that a snapshot holds, and decoded when it is asked for: a restart reads
keys and keeps bytes, so a million resources are ready within seconds and take little memory. An aggregate
changes by decoding it, applying a record, and encoding it again. A long history is cut into chunks that
never change once they are full, so that neither a change nor a snapshot costs more with its length.
"""

from __future__ import annotations

import heapq
import itertools
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import final

import msgspec

from circuit_breaker_server.engine.workflows.definitions import WorkflowDefinition
from circuit_breaker_server.engine.workflows.records import (
    HISTORY_TAIL,
    HISTORY_TAIL_BYTES,
    ActivityExecuted,
    ResourceChanged,
    ResourceCreated,
    StateCreated,
    StateUpdated,
    WorkflowCreated,
    decode_body,
)
from circuit_breaker_server.engine.workflows.workflow import Workflow
from circuit_breaker_server.log.event_log import LogCorruptError, Record, Snapshot, SnapshotEntry

__all__ = ["SNAPSHOT_UPCASTERS", "SNAPSHOT_VERSION", "FoldedState", "Resource", "after_activity"]

SNAPSHOT_VERSION = 1

SNAPSHOT_UPCASTERS: dict[tuple[str, int], Callable[[list[object]], list[object]]] = {}
"""By kind of entry (``r``, ``w``) and version: makes the entry of the next version of it."""

CHUNK_ENTRIES = 4 * HISTORY_TAIL
CHUNK_BYTES = HISTORY_TAIL_BYTES

_CACHED_WORKFLOWS = 1_000


@final
class Resource(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """A resource at one moment, and its entry in a snapshot.

    :ivar created: the offset of the record that created it.
    :ivar last: the offset of its last record.
    :ivar chunks: how many full chunks of its history are kept beside it.
    :ivar history: the entries after those chunks, oldest first.
    :ivar history_bytes: their size.
    """

    v: int = SNAPSHOT_VERSION
    id: str
    workflow_id: str
    state: str
    data: msgspec.Raw
    metadata: msgspec.Raw
    created_at: str
    updated_at: str
    created: int
    last: int
    chunks: int = 0
    history: tuple[msgspec.Raw, ...] = ()
    history_bytes: int = 0


@final
class _WorkflowEntry(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    v: int = SNAPSHOT_VERSION
    definition: WorkflowDefinition
    created: int
    last: int


_ENCODER = msgspec.json.Encoder()
_RESOURCE: msgspec.json.Decoder[Resource] = msgspec.json.Decoder(Resource)
_WORKFLOW: msgspec.json.Decoder[_WorkflowEntry] = msgspec.json.Decoder(_WorkflowEntry)
_CHUNK: msgspec.json.Decoder[tuple[msgspec.Raw, ...]] = msgspec.json.Decoder(tuple[msgspec.Raw, ...])


def after_activity(old: Resource, body: ActivityExecuted, offset: int) -> tuple[Resource, bytes | None]:
    """Return a resource after an activity, and the chunk of history that became full by it, if one did."""
    image = body.resource
    entry = _numbered(image.history[-1], offset)
    history = (*old.history, entry)
    size = old.history_bytes + memoryview(entry).nbytes
    chunk = None
    if len(history) >= CHUNK_ENTRIES or size >= CHUNK_BYTES:
        chunk = _ENCODER.encode(history)
        history, size = (), 0
    resource = msgspec.structs.replace(
        old,
        state=image.state,
        data=image.data,
        metadata=image.metadata,
        updated_at=image.updated_at,
        last=offset,
        chunks=old.chunks + (chunk is not None),
        history=history,
        history_bytes=size,
    )
    return resource, chunk


def _numbered(entry: msgspec.Raw, offset: int) -> msgspec.Raw:
    """Return an entry of a history, a JSON object with keys, with the offset of its record added to it."""
    return msgspec.Raw(bytes(entry)[:-1] + b',"natsSequence":"%d"}' % offset)


@final
class FoldedState:
    """The workflows and resources, folded from the records up to :attr:`applied`.

    :ivar applied: the offset of the last record applied.

    Example::

        state = FoldedState()
        state.restore(await log.load_snapshot())
        async for record in log.scan(after=state.applied):
            state.apply(record)
    """

    tokens = frozenset({"workflow", "resource"})
    prefixes = frozenset({"w", "r", "h"})

    def __init__(self) -> None:
        self.applied = 0
        self._workflows: dict[str, bytes] = {}
        self._resources: dict[str, bytes] = {}
        self._members: dict[str, list[str]] = {}
        self._chunks: dict[str, list[bytes]] = {}
        self._dirty: dict[str, bytes] = {}
        self._cache: OrderedDict[str, Workflow] = OrderedDict()

    # --- reading ---

    def workflow(self, workflow_id: str) -> Workflow | None:
        """Return a workflow as it is now."""
        workflow = self._cache.get(workflow_id)
        if workflow is not None:
            self._cache.move_to_end(workflow_id)
            return workflow
        data = self._workflows.get(workflow_id)
        if data is None:
            return None
        entry = _WORKFLOW.decode(data)
        workflow = Workflow(entry.definition, created=entry.created, last=entry.last)
        self._remember(workflow)
        return workflow

    def resource(self, resource_id: str) -> Resource | None:
        """Return a resource as it is now."""
        data = self._resources.get(resource_id)
        return None if data is None else _RESOURCE.decode(data)

    def workflow_ids(self) -> list[str]:
        """Return the ids of all workflows, in the order of their creation."""
        return list(self._workflows)

    def resource_ids(self, workflow_id: str | None = None) -> list[str]:
        """Return the ids of a workflow's resources, or of all, in the order of their creation."""
        return list(self._resources if workflow_id is None else self._members.get(workflow_id, ()))

    def count_resources(self, workflow_id: str) -> int:
        """Tell how many resources a workflow has."""
        return len(self._members.get(workflow_id, ()))

    def resources_of(self, workflow_ids: Iterable[str | None], *, after: int = 0) -> Iterator[Resource]:
        """Yield the resources of some workflows, in the order of their creation; each as it is in its turn.

        :param workflow_ids: ``None`` among them stands for all workflows.
        :param after: the offset of a record; only resources that were made after it are yielded.
        """
        return heapq.merge(
            *(self._made_after(after, workflow_id) for workflow_id in workflow_ids),
            key=lambda resource: resource.created,
        )

    def _made_after(self, offset: int, workflow_id: str | None) -> Iterator[Resource]:
        ids = self.resource_ids(workflow_id)
        begin = 0
        if offset:
            begin = bisect_right(ids, offset, key=lambda id_: _RESOURCE.decode(self._resources[id_]).created)
        return (_RESOURCE.decode(self._resources[id_]) for id_ in itertools.islice(ids, begin, None))

    def history(self, resource: Resource) -> Iterator[msgspec.Raw]:
        """Yield the whole history of a resource as it was when it was read, oldest first."""
        for chunk in self._chunks.get(resource.id, ())[: resource.chunks]:
            yield from _CHUNK.decode(chunk)
        yield from resource.history

    def recent_history(self, resource: Resource) -> tuple[msgspec.Raw, ...]:
        """Return the end of a resource's history: at least as much as a record may hold of it."""
        if len(resource.history) >= HISTORY_TAIL or resource.chunks == 0:
            return resource.history
        # A full chunk has more entries, or more bytes, than a record may hold: one is enough.
        chunk = self._chunks[resource.id][resource.chunks - 1]
        return (*_CHUNK.decode(chunk), *resource.history)

    # --- folding ---

    def apply(self, record: Record) -> None:
        """Apply the next record.

        :raises LogCorruptError: the record cannot be read, or changes what is not there.
        """
        body = decode_body(record)
        match body:
            case WorkflowCreated(workflow=definition):
                self._put_workflow(Workflow(definition, created=record.offset, last=record.offset))
            case StateCreated(workflow_id=workflow_id, state=state):
                self._put_workflow(
                    self._known_workflow(workflow_id, record).with_state(state, last=record.offset)
                )
            case StateUpdated(workflow_id=workflow_id, state=state):
                self._put_workflow(
                    self._known_workflow(workflow_id, record).with_state(state, last=record.offset)
                )
            case ResourceCreated(resource=image):
                self._members.setdefault(image.workflow_id, []).append(image.id)
                self._put_resource(
                    Resource(
                        id=image.id,
                        workflow_id=image.workflow_id,
                        state=image.state,
                        data=image.data,
                        metadata=image.metadata,
                        created_at=image.created_at,
                        updated_at=image.updated_at,
                        created=record.offset,
                        last=record.offset,
                    )
                )
            case ResourceChanged(resource=image):
                changed = msgspec.structs.replace(
                    self._known_resource(image.id, record),
                    data=image.data,
                    updated_at=image.updated_at,
                    last=record.offset,
                )
                self._put_resource(changed)
            case ActivityExecuted(resource=image):
                old = self._known_resource(image.id, record)
                resource, chunk = after_activity(old, body, record.offset)
                if chunk is not None:
                    self._chunks.setdefault(resource.id, []).append(chunk)
                    self._dirty[f"h/{resource.id}/{old.chunks:08x}"] = chunk
                self._put_resource(resource)
        self.applied = record.offset

    def _known_workflow(self, workflow_id: str, record: Record) -> Workflow:
        workflow = self.workflow(workflow_id)
        if workflow is None:
            raise LogCorruptError(f"record {record.offset} changes a workflow that no record created")
        return workflow

    def _known_resource(self, resource_id: str, record: Record) -> Resource:
        resource = self.resource(resource_id)
        if resource is None:
            raise LogCorruptError(f"record {record.offset} changes a resource that no record created")
        return resource

    def _put_workflow(self, workflow: Workflow) -> None:
        definition = workflow.definition
        entry = _WorkflowEntry(definition=definition, created=workflow.created, last=workflow.last)
        data = _ENCODER.encode(entry)
        self._workflows[definition.id] = data
        self._dirty[f"w/{workflow.created:016x}/{definition.id}"] = data
        self._remember(workflow)

    def _put_resource(self, resource: Resource) -> None:
        data = _ENCODER.encode(resource)
        self._resources[resource.id] = data
        self._dirty[f"r/{resource.created:016x}/{resource.workflow_id}/{resource.id}"] = data

    def _remember(self, workflow: Workflow) -> None:
        self._cache[workflow.definition.id] = workflow
        self._cache.move_to_end(workflow.definition.id)
        if len(self._cache) > _CACHED_WORKFLOWS:
            self._cache.popitem(last=False)

    # --- snapshots ---

    def count_changes(self) -> int:
        """Return how many entries have changed since changes were last taken."""
        return len(self._dirty)

    def take_changes(self) -> tuple[int, list[SnapshotEntry]]:
        """Return what changed since it was last taken, and the offset up to which it did."""
        changes, self._dirty = self._dirty, {}
        return self.applied, [SnapshotEntry(key=key, data=data) for key, data in changes.items()]

    def give_back(self, changes: Sequence[SnapshotEntry]) -> None:
        """Take back changes that could not be saved, for the next time."""
        self._dirty = {entry.key: entry.data for entry in changes if entry.data is not None} | self._dirty

    def restore(self, snapshot: Snapshot) -> None:
        """Begin with a snapshot instead of nothing.

        :raises LogCorruptError: an entry is of a newer version, or cannot be read.
        """
        current = b"[%d," % SNAPSHOT_VERSION
        entries = snapshot.entries
        for key in sorted(entries):  # keys sort by creation
            data = entries[key]
            kind, _, rest = key.partition("/")
            if kind == "h":
                self._chunks.setdefault(rest.partition("/")[0], []).append(data)
                continue
            if not data.startswith(current):
                data = _upcast(kind, key, data)
            if kind == "r":
                _, workflow_id, resource_id = rest.split("/")
                self._resources[resource_id] = data
                members = self._members.get(workflow_id)
                if members is None:
                    self._members[workflow_id] = members = []
                members.append(resource_id)
            else:
                self._workflows[rest.partition("/")[2]] = data
        self.applied = snapshot.offset


def _upcast(kind: str, key: str, data: bytes) -> bytes:
    try:
        entry = msgspec.json.decode(data, type=list[object])
        version = entry[0]
        if not isinstance(version, int) or version > SNAPSHOT_VERSION:
            raise LogCorruptError(
                f"snapshot entry {key!r} has version {version}, this program reads up to {SNAPSHOT_VERSION}; "
                "run the newer program"
            )
        for step in range(version, SNAPSHOT_VERSION):
            entry = [step + 1, *SNAPSHOT_UPCASTERS[kind, step](entry)[1:]]
    except (msgspec.DecodeError, KeyError, IndexError) as error:
        raise LogCorruptError(f"snapshot entry {key!r} cannot be read: {error}") from error
    return _ENCODER.encode(entry)
