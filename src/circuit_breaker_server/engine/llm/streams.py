"""From the records of completions to ``llmStream``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from circuit_breaker_server.engine.event_fields import EventFields, FieldSource, always
from circuit_breaker_server.engine.events import StreamEvent
from circuit_breaker_server.engine.llm.records import (
    CompletionEnded,
    CompletionFailed,
    CompletionStarted,
    PiecesAdded,
    decode_body,
)
from circuit_breaker_server.log.event_log import Record

__all__ = ["EVENT_FIELDS", "LLM_STREAM", "derive", "ends"]

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
                    _piece_type(piece),
                    delta=piece[0],
                )
                for piece in pieces
            )
        case CompletionEnded(streaming=True, usage=usage):
            return (_event(body.request_id, body.at, "STREAM_END", usage=usage.tokens_value()),)
        case CompletionFailed(streaming=True, error=error):
            return (_event(body.request_id, body.at, "STREAM_ERROR", error=error),)
        case _:
            return ()


def _piece_type(piece: tuple[str, bool]) -> str:
    return "FUNCTION_CALL" if piece[1] else "CONTENT_DELTA"


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


_NULL = always(None)


def _fields(
    event_type: FieldSource,
    *,
    delta: FieldSource = _NULL,
    is_complete: bool = False,
    usage: FieldSource = _NULL,
    error: FieldSource = _NULL,
) -> dict[str, FieldSource]:
    return {
        "eventType": event_type,
        "requestId": "request_id",
        "delta": delta,
        "token": always(None),
        "isComplete": always(is_complete),
        "timestamp": "at",
        "usage": usage,
        "error": error,
    }


def _if_streaming(body: CompletionEnded | CompletionFailed) -> tuple[Any, ...]:
    return (body,) if body.streaming else ()


EVENT_FIELDS: Mapping[str, Mapping[type, EventFields]] = {
    LLM_STREAM: {
        CompletionStarted: EventFields(_fields(always("STREAM_START"))),
        PiecesAdded: EventFields(
            _fields(
                lambda _record, _body, piece: _piece_type(piece),
                delta=lambda _record, _body, piece: piece[0],
            ),
            items=lambda body: body.pieces,
        ),
        CompletionEnded: EventFields(
            _fields(
                always("STREAM_END"),
                is_complete=True,
                usage=lambda _record, body, _item: body.usage.tokens_value(),
            ),
            items=_if_streaming,
        ),
        CompletionFailed: EventFields(
            _fields(always("STREAM_ERROR"), is_complete=True, error="error"), items=_if_streaming
        ),
    },
}
"""The sources of the fields of events, by stream and type of body."""
