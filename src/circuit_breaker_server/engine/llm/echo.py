"""The built-in provider, which answers with the last message's own words."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from typing import Final, final

from circuit_breaker_server.engine.llm.endpoints import Ask, Outcome, Piece
from circuit_breaker_server.engine.llm.inputs import ModelInput

__all__ = ["ECHO_MODEL", "Echo"]

_WORD = re.compile(r"\s*\S+\s*")

ECHO_MODEL: Final = ModelInput(
    id="echo",
    name="Echo",
    max_tokens=1_000_000,
    context_window=1_000_000,
    cost_per_input_token=0.000_001,
    cost_per_output_token=0.000_002,
    supports_streaming=True,
    supports_function_calling=False,
    capabilities=("chat",),
)
"""The model of the built-in provider; its prices are there for demonstrations and tests."""


@final
class Echo:
    """Says the last message's own words back, one piece a word; needs no network."""

    async def prepare(self) -> None:
        """Do nothing."""

    async def ask(self, ask: Ask, outcome: Outcome) -> AsyncIterator[Piece]:
        """See :class:`Endpoint`; a token is a word."""
        text = ask.messages[-1].content
        outcome.finish_reason = "stop"
        for stop in ask.stop or ():
            text = text.partition(stop)[0]
        words = _WORD.findall(text)
        if ask.max_tokens is not None and len(words) > ask.max_tokens:
            words = words[: ask.max_tokens]
            outcome.finish_reason = "length"
        outcome.prompt_tokens = sum(len(message.content.split()) for message in ask.messages)
        outcome.completion_tokens = len(words)
        for word in words:
            yield Piece(word)
            await asyncio.sleep(0)

    async def aclose(self) -> None:
        """Do nothing."""
