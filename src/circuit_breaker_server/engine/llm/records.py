"""The records of providers and completions. No key is in them: only the names of keys."""

from __future__ import annotations

from typing import final

import msgspec

from circuit_breaker_server.engine.costs.records import Usage
from circuit_breaker_server.engine.llm.inputs import ModelInput
from circuit_breaker_server.engine.record_bodies import VersionedBody, decode_as
from circuit_breaker_server.log.event_log import Record, subject

__all__ = [
    "Body",
    "CompletionEnded",
    "CompletionFailed",
    "CompletionRequested",
    "CompletionStarted",
    "PiecesAdded",
    "ProviderConfigured",
    "completion_subject",
    "decode_body",
    "provider_subject",
]


def provider_subject(provider_id: str) -> str:
    """Name the subject of a provider's records."""
    return subject("provider", provider_id)


def completion_subject(request_id: str) -> str:
    """Name the subject of a completion's records."""
    return subject("completion", request_id)


@final
class ProviderConfigured(VersionedBody, frozen=True, kw_only=True, tag="provider_configured"):
    """By ``configureLlmProvider``: the provider after it.

    :ivar tenant: whose it is; ``None`` for the operator's, which serve every tenant.
    """

    id: str
    provider_type: str
    name: str
    base_url: str
    api_key_id: str
    models: tuple[ModelInput, ...]
    created_at: str
    updated_at: str
    tenant: str | None = None


class _OfCompletion(VersionedBody, frozen=True, kw_only=True):
    request_id: str
    at: str


@final
class CompletionRequested(_OfCompletion, frozen=True, kw_only=True, tag="completion_requested"):
    """Reserves the request's id. It has no event: the place after it is where its stream begins."""

    model: str
    provider_id: str
    streaming: bool
    asked_by: str = ""


@final
class CompletionStarted(_OfCompletion, frozen=True, kw_only=True, tag="completion_started"):
    """The provider has begun to answer; of streaming completions only."""


@final
class PiecesAdded(_OfCompletion, frozen=True, kw_only=True, tag="pieces_added"):
    """Pieces that the provider sent since the last record, in order.

    :ivar pieces: the text of each, and whether it is part of a function call.
    """

    pieces: tuple[tuple[str, bool], ...]


class _End(_OfCompletion, frozen=True, kw_only=True):
    provider_id: str
    latency_ms: int
    streaming: bool


@final
class CompletionEnded(_End, frozen=True, kw_only=True, tag="completion_ended"):
    """The provider has answered whole; ``usage`` is to be charged."""

    finish_reason: str | None
    usage: Usage


@final
class CompletionFailed(_End, frozen=True, kw_only=True, tag="completion_failed"):
    """The provider has failed, or the server died in the middle (``blames_provider`` is false).

    :ivar error: for the caller alone: a provider's own text may quote the prompt.
    :ivar summary: the error for every caller that may see the provider.
    """

    error: str
    blames_provider: bool
    summary: str = "failed"


Body = (
    ProviderConfigured
    | CompletionRequested
    | CompletionStarted
    | PiecesAdded
    | CompletionEnded
    | CompletionFailed
)
_DECODER: msgspec.json.Decoder[Body] = msgspec.json.Decoder(Body)


def decode_body(record: Record) -> Body:
    """Read a record of a provider or a completion.

    :raises LogCorruptError: it is of a newer version, of an unknown type, or no body at all.
    """
    return decode_as(_DECODER, record)
