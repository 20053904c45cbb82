"""The state of providers and of completions that can still be read."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import final

import msgspec

from circuit_breaker_server.engine.command_origin import origin_of
from circuit_breaker_server.engine.costs.records import Usage
from circuit_breaker_server.engine.expiry_table import KEPT, EndedKeys
from circuit_breaker_server.engine.llm.inputs import ModelInput
from circuit_breaker_server.engine.llm.records import (
    CompletionEnded,
    CompletionFailed,
    CompletionRequested,
    CompletionStarted,
    PiecesAdded,
    ProviderConfigured,
    decode_body,
)
from circuit_breaker_server.engine.state_tables import Entry, Table, TablePart
from circuit_breaker_server.engine.timestamps import timestamp
from circuit_breaker_server.log.event_log import LogCorruptError, Record, Snapshot

__all__ = ["CompletionEntry", "LlmState", "ProviderEntry", "configured", "is_too_old"]

_UNHEALTHY_AFTER = 3


def is_too_old(ended_at: str | None, now: datetime) -> bool:
    """Tell whether what ended then can no longer be read; what runs (``None``) can."""
    return ended_at is not None and ended_at < timestamp(now - KEPT)


@final
class ProviderEntry(Entry, frozen=True, kw_only=True, rename="camel"):
    """A provider, and how its calls went since it was last configured.

    :ivar last: the offset of the last record of its subject.
    :ivar tenant: whose it is; ``None`` for the operator's, which serve every tenant.
    """

    last: int
    id: str
    provider_type: str
    name: str
    base_url: str
    api_key_id: str
    models: tuple[ModelInput, ...]
    created_at: str
    updated_at: str
    calls: int = 0
    failures: int = 0
    failures_in_a_row: int = 0
    latency_ms: int = 0
    last_call_at: str | None = None
    last_error: str | None = None
    tenant: str | None = None

    def model(self, model_id: str) -> ModelInput | None:
        """Return one of its models."""
        return next((model for model in self.models if model.id == model_id), None)

    def health_value(self) -> dict[str, object]:
        """Return how it goes, in the shape of ``LlmProviderHealthGQL``."""
        return {
            "isHealthy": self.failures_in_a_row < _UNHEALTHY_AFTER,
            "lastCheck": self.last_call_at or self.updated_at,
            "errorRate": self.failures / self.calls if self.calls else 0.0,
            "averageLatencyMs": self.latency_ms // self.calls if self.calls else 0,
            "consecutiveFailures": self.failures_in_a_row,
            "lastError": self.last_error,
        }


def configured(body: ProviderConfigured, *, created: int, last: int) -> ProviderEntry:
    """Return a provider as its configuration leaves it; the offsets are of its first and last record."""
    return ProviderEntry(
        created=created,
        last=last,
        id=body.id,
        provider_type=body.provider_type,
        name=body.name,
        base_url=body.base_url,
        api_key_id=body.api_key_id,
        models=body.models,
        created_at=body.created_at,
        updated_at=body.updated_at,
        tenant=body.tenant,
    )


@final
class CompletionEntry(Entry, frozen=True, kw_only=True):
    """A completion; ``created`` is the offset of its first record.

    :ivar check: of that record.
    :ivar last: the offset of its last record so far.
    :ivar ended_at: when it ended; ``None`` while it runs.
    :ivar asked_by: the id of the principal whose it is.
    :ivar node: the node that was asked, since it joined in this ``term``: only it knows the messages.
    """

    check: str
    last: int
    request_id: str
    provider_id: str
    streaming: bool
    ended_at: str | None = None
    asked_by: str = ""
    node: str = ""
    term: int = 0


@final
class LlmState(TablePart):
    """Providers and completions.

    :param owe: told of each usage that is to be charged.
    """

    tokens = frozenset({"provider", "completion"})

    def __init__(self, owe: Callable[[Usage, Record], None]) -> None:
        self.providers: Table[ProviderEntry] = Table("provider", ProviderEntry)
        self.completions: Table[CompletionEntry] = Table("completion", CompletionEntry)
        self._owe = owe
        self._ended = EndedKeys()
        super().__init__(self.providers, self.completions)

    def restore(self, snapshot: Snapshot) -> None:
        """See :class:`Part`."""
        super().restore(snapshot)
        self._ended.restore((key, entry.ended_at) for key, entry in self.completions.items())

    def apply(self, record: Record) -> None:
        """Apply a record of a provider or a completion."""
        body = decode_body(record)
        match body:
            case ProviderConfigured():
                self._configure(body, record)
            case CompletionRequested():
                for old_id in self._ended.take_old(body.at):
                    self.completions.remove(old_id)
                origin = origin_of(record)
                entry = CompletionEntry(
                    created=record.offset,
                    check=record.check,
                    last=record.offset,
                    request_id=body.request_id,
                    provider_id=body.provider_id,
                    streaming=body.streaming,
                    asked_by=body.asked_by,
                    node=origin.node,
                    term=origin.term,
                )
                self.completions.put(body.request_id, entry)
            case CompletionStarted() | PiecesAdded():
                self._advance(body.request_id, record, ended_at=None)
            case CompletionEnded(usage=usage):
                self._advance(body.request_id, record, ended_at=body.at)
                self._count(body, error=None)
                self._owe(usage, record)
            case CompletionFailed(summary=summary):
                self._advance(body.request_id, record, ended_at=body.at)
                if body.blames_provider:
                    self._count(body, error=summary)

    def _configure(self, body: ProviderConfigured, record: Record) -> None:
        old = self.providers.get(body.id)
        created = record.offset if old is None else old.created
        self.providers.put(body.id, configured(body, created=created, last=record.offset))

    def _advance(self, request_id: str, record: Record, *, ended_at: str | None) -> None:
        entry = self.completions.get(request_id)
        if entry is None:
            raise LogCorruptError(f"record {record.offset} goes on with a completion that no record began")
        self.completions.put(
            request_id, msgspec.structs.replace(entry, last=record.offset, ended_at=ended_at)
        )
        if ended_at is not None:
            self._ended.put(request_id, ended_at)

    def _count(self, body: CompletionEnded | CompletionFailed, *, error: str | None) -> None:
        entry = self.providers.get(body.provider_id)
        if entry is None:
            return  # the built-in provider
        entry = msgspec.structs.replace(
            entry,
            calls=entry.calls + 1,
            failures=entry.failures + (error is not None),
            failures_in_a_row=0 if error is None else entry.failures_in_a_row + 1,
            latency_ms=entry.latency_ms + body.latency_ms,
            last_call_at=body.at,
            last_error=entry.last_error if error is None else error,
        )
        self.providers.put(entry.id, entry)
