"""The endpoint of a provider: its interface, what it is asked, what it answers and how it fails."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Sequence
from typing import Final, Protocol, final

import msgspec

from circuit_breaker_server.engine.llm.inputs import ChatMessage, ModelInput
from circuit_breaker_server.logs import get_logger

__all__ = ["MAX_TOKENS", "Ask", "Endpoint", "Outcome", "Piece", "ProviderFailed"]

_log = get_logger("llm")

_BYTES_PER_CHARACTER: Final = 4  # at most, in UTF-8
_TEMPLATE_TOKENS: Final = 16_384
"""The most tokens that a provider may add to a prompt; more are cut from its count."""
_REASONING_TOKENS: Final = 65_536
"""The most tokens that a model may use for reasoning, beyond its visible answer; more are cut."""
_CHARACTERS_PER_TOKEN: Final = 4  # an estimate, for endpoints that do not count
MAX_TOKENS: Final = 2**31  # an Int of GraphQL is less


@final
class Ask(msgspec.Struct, frozen=True, kw_only=True):
    """The request to a provider; ``None`` leaves a parameter to the provider."""

    model: str
    messages: Sequence[ChatMessage]
    temperature: float | None = None
    max_tokens: int | None = None
    top_p: float | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    stop: Sequence[str] | None = None
    user: str | None = None


@final
class Piece(msgspec.Struct, frozen=True):
    """A part of an answer: text, or the JSON of a function call."""

    text: str
    is_call: bool = False

    @property
    def json_bytes(self) -> int:
        """The size of its text as JSON, as a record of the log holds it."""
        return len(msgspec.json.encode(self.text))


@final
class Outcome(msgspec.Struct, kw_only=True):
    """The result of a provider's answer; complete once its last piece has arrived.

    :ivar prompt_tokens: the provider's count; ``None`` if it sends none.
    :ivar retries: the number of retries before it answered.
    """

    finish_reason: str | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    retries: int = 0

    def tokens(
        self,
        *,
        prompt_characters: int,
        completion_characters: int,
        max_tokens: int | None,
        model: ModelInput | None,
    ) -> tuple[int, int]:
        """Return the tokens of the prompt and of the answer, by which callers are charged.

        A number that the provider did not send is estimated. An impossible number is cut down to the largest
        possible one, with a warning in the server's log: a token is a byte at least, and an answer is no
        longer than the request allowed.

        :param max_tokens: as in the request.
        :param model: as the provider lists it.
        """
        window = MAX_TOKENS if model is None else model.context_window
        return (
            self._plausible(
                self.prompt_tokens,
                prompt_characters,
                most=min(prompt_characters * _BYTES_PER_CHARACTER + _TEMPLATE_TOKENS, window),
            ),
            self._plausible(
                self.completion_tokens,
                completion_characters,
                most=min(
                    completion_characters * _BYTES_PER_CHARACTER + _REASONING_TOKENS,
                    window,
                    window if max_tokens is None else max_tokens,
                ),
            ),
        )

    def _plausible(self, reported: int | None, characters: int, *, most: int) -> int:
        if reported is None:
            return _estimate(characters)
        if reported > most:
            _log.warning("tokens_cut_down", reported=reported, counted=most)
            return most
        return reported


def _estimate(characters: int) -> int:
    return math.ceil(characters / _CHARACTERS_PER_TOKEN)


@final
class ProviderFailed(Exception):
    """A provider did not answer, or not whole. The text is for the caller: no key is in it.

    :param detail: the provider's own text, which may quote the prompt: it is for this caller alone.
    :ivar summary: the message without the detail; every caller that may see the provider may see it.
    :ivar retryable: asking again later may help.
    :ivar retry_after_seconds: when, where the provider said so.
    :ivar kind: ``rate_limit``, ``authentication``, ``timeout``, ``connection``, ``server``, ``request``,
        ``broken``, ``address`` (the server may not connect there), ``too_big`` or ``not_installed``.
    """

    def __init__(
        self, kind: str, summary: str, *, detail: str = "", retry_after_seconds: float | None = None
    ) -> None:
        self.kind = kind
        self.summary = summary
        self.message = f"{summary}: {detail}" if detail else summary
        self.retryable = kind in ("rate_limit", "timeout", "connection", "server", "broken")
        self.retry_after_seconds = retry_after_seconds
        super().__init__(self.message)


class Endpoint(Protocol):
    """The interface of a provider's endpoint."""

    async def prepare(self) -> None:
        """Load what a request needs; this does not wait for the provider."""
        ...

    def ask(self, ask: Ask, outcome: Outcome) -> AsyncIterator[Piece]:
        """Yield the answer piece by piece, and fill in the outcome.

        :raises ProviderFailed: it did not answer, or not whole.
        """
        ...

    async def aclose(self) -> None:
        """Close connections. Idempotent."""
        ...
