"""Read the chunks of an OpenAI answer: its pieces, its size, the provider's count of tokens."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, cast, final

from circuit_breaker_server.engine.llm.endpoints import MAX_TOKENS, Outcome, Piece, ProviderFailed
from circuit_breaker_server.outbound import AnswerLimits

if TYPE_CHECKING:
    from openai.types.chat import ChatCompletionChunk
    from openai.types.chat.chat_completion_chunk import ChoiceDelta

__all__ = ["AnswerSize", "AnswerTexts", "brief", "pieces_of"]


@final
class AnswerSize:
    """Counts the pieces of an answer, and what they take as JSON."""

    def __init__(self, limits: AnswerLimits) -> None:
        self._limits = limits
        self._pieces = self._bytes = 0

    def add(self, piece: Piece) -> None:
        """Count a piece.

        :raises ProviderFailed: the answer is too big.
        """
        self._pieces += 1
        self._bytes += piece.json_bytes
        if self._pieces > self._limits.max_pieces:
            raise ProviderFailed("too_big", f"answered with more than {self._limits.max_pieces} pieces")
        if self._bytes > self._limits.max_text_bytes:
            raise ProviderFailed(
                "too_big", f"answered with more than {self._limits.max_text_bytes} bytes of text"
            )


def _count(value: object) -> int | None:
    """Check a number of tokens; ``None`` says that the provider did not count."""
    if value is None or (type(value) is int and 0 <= value < MAX_TOKENS):
        return value
    raise ProviderFailed("broken", "an answer that cannot be read", detail=f"{brief(repr(value))} tokens")


def pieces_of(chunk: ChatCompletionChunk, outcome: Outcome, texts: AnswerTexts) -> Iterator[Piece]:
    """Yield what a chunk adds to the answer, and note what it says of the whole."""
    # The library does not check what it has read: numbers may be texts, and anything may be null.
    if chunk.usage is not None:
        outcome.prompt_tokens = _count(chunk.usage.prompt_tokens)
        outcome.completion_tokens = _count(chunk.usage.completion_tokens)
    for choice in (chunk.choices or ())[:1]:
        if choice.finish_reason:
            outcome.finish_reason = _text(choice.finish_reason)
        delta = cast("ChoiceDelta | None", choice.delta)
        if delta is None:
            continue
        if text := texts.add(delta.content or ""):
            yield Piece(text)
        for call in delta.tool_calls or ():
            yield Piece(call.model_dump_json(exclude_none=True), is_call=True)


@final
class AnswerTexts:
    """Texts whose characters may be split: half a surrogate pair at the end of one waits for the next."""

    def __init__(self) -> None:
        self._half = ""

    def add(self, value: object) -> str:
        """Return the text up to its last whole character."""
        if not isinstance(value, str):
            return _text(value)
        text, self._half = self._half + value, ""
        if text and "\ud800" <= text[-1] <= "\udbff":
            text, self._half = text[:-1], text[-1]
        if any("\ud800" <= character <= "\udfff" for character in text):
            text = text.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")
        return _text(text)

    def end(self) -> None:
        """Check that no half of a character is left.

        :raises ProviderFailed: one is.
        """
        _text(self._half)


def _text(value: object) -> str:
    """Check a text: half a surrogate pair is legal JSON, and cannot be written in UTF-8."""
    try:
        if isinstance(value, str):
            value.encode()
            return value
    except UnicodeEncodeError:
        pass
    raise ProviderFailed(
        "broken", "an answer that cannot be read", detail=f"{brief(ascii(value))} is no text"
    )


def brief(text: str) -> str:
    """Return a text on one line, cut to 200 characters."""
    line = " ".join(text.split())
    return line if len(line) <= 200 else line[:200] + "…"
