"""From the records of completions to ``llmStream``."""

from __future__ import annotations

from collections.abc import Mapping

from circuit_breaker_server.engine.events import StreamEvent
from circuit_breaker_server.engine.llm.records import (
    CompletionEnded,
    CompletionFailed,
    CompletionStarted,
    PiecesAdded,
    decode_body,
)
from circuit_breaker_server.log.event_log import Record

__all__ = ["LLM_STREAM", "derive", "ends"]

LLM_STREAM = "llmStream"


def derive(record: Record) -> tuple[StreamEvent, ...]:
    """Return the events of a record; a completion that is not streamed has none."""
    body = decode_body(record)
    match body:
        case CompletionStarted():
            return (_event(body.request_id, body.at, "STREAM_START"),)
        case PiecesAdded(pieces=pieces):
            return tuple(
                _event(
                    body.request_id,
                    body.at,
                    "FUNCTION_CALL" if is_call else "CONTENT_DELTA",
                    delta=text,
                )
                for text, is_call in pieces
            )
        case CompletionEnded(streaming=True, usage=usage):
            return (_event(body.request_id, body.at, "STREAM_END", usage=usage.tokens_value()),)
        case CompletionFailed(streaming=True, error=error):
            return (_event(body.request_id, body.at, "STREAM_ERROR", error=error),)
        case _:
            return ()


def ends(value: Mapping[str, object]) -> bool:
    """Tell whether an event is the last of its stream."""
    return bool(value["isComplete"])


def _event(
    request_id: str,
    at: str,
    event_type: str,
    *,
    delta: str | None = None,
    usage: Mapping[str, object] | None = None,
    error: str | None = None,
) -> StreamEvent:
    value: dict[str, object] = {
        "eventType": event_type,
        "requestId": request_id,
        "delta": delta,
        "token": None,
        "isComplete": event_type in ("STREAM_END", "STREAM_ERROR"),
        "timestamp": at,
        "usage": usage,
        "error": error,
    }
    return StreamEvent(LLM_STREAM, value)
