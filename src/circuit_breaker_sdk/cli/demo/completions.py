"""Completions in the demo: streamed by the built-in provider, charged until the budget is gone."""

from __future__ import annotations

import re
import uuid
from collections.abc import Hashable
from contextlib import AsyncExitStack
from itertools import count
from typing import Final, final

from circuit_breaker_sdk.cli.demo.demo_part import Stage
from circuit_breaker_sdk.cli.event_rendering import words_of_chunk, words_of_cost
from circuit_breaker_sdk.events import ChatMessageInput, CostUpdate, LLMResponse, LLMStreamChunk

__all__ = ["Completions", "chunk_value", "cost_value", "owed_chunks"]

PROJECT: Final = "demo"
BUDGET_USD: Final = 0.000_250
WARNING_THRESHOLD: Final = 0.8
_PAUSE_SECONDS = 0.12

_PROMPTS = (
    "Summarise the incident report in one sentence that a customer would understand.",
    "List three risks of deploying on a Friday, and what to watch for each.",
    "Write a friendly reminder that the quarterly plan waits for its reviewer.",
    "Explain why the error rate went up after the last release.",
)
_WORD = re.compile(r"\s*\S+\s*")


@final
class Completions:
    """One completion after the other; when the budget is exhausted a credit and a new budget follow."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._used = 0.0

    async def prepare(self) -> None:
        """Subscribe to what the project pays."""
        client = self._stage.client
        await self._stage.subscribe(
            "costUpdates",
            PROJECT,
            client.analytics.subscribe_cost_updates(project_id=PROJECT),
            client.subscriptions.cost_updates(project_id=PROJECT),
            value_of=cost_value,
            words_of=words_of_cost,
        )

    async def lead(self) -> None:
        """Spend the budget, again and again."""
        stage = self._stage
        numbers = count()
        while not stage.stop.is_set():
            await self._set_budget()
            while not stage.stop.is_set() and self._used < BUDGET_USD:
                await self._complete(next(numbers))
                await stage.pause(_PAUSE_SECONDS)
            if self._used >= BUDGET_USD:
                await self._credit()

    async def _set_budget(self) -> None:
        ticket = self._stage.ledger.send()
        status = await self._stage.client.analytics.set_budget(
            project_id=PROJECT, limit=BUDGET_USD, period="monthly", warning_threshold=WARNING_THRESHOLD
        )
        self._used = status.used
        self._stage.ledger.accepted(
            ticket, {("costUpdates", PROJECT): [("BUDGET_RESET", 0.0, _usd(self._used))]}
        )

    async def _credit(self) -> None:
        ticket, amount = self._stage.ledger.send(), self._used
        status = await self._stage.client.analytics.apply_credit(project_id=PROJECT, amount=amount)
        self._used = status.used
        owed = ("CREDIT_APPLIED", -_usd(amount), _usd(self._used))
        self._stage.ledger.accepted(ticket, {("costUpdates", PROJECT): [owed]})

    async def _complete(self, number: int) -> None:
        """Follow a request by both clients first, then send it: no chunk can be missed."""
        stage, client = self._stage, self._stage.client
        request_id = str(uuid.uuid4())
        async with AsyncExitStack() as until:
            streams = await stage.subscribe(
                "llmStream",
                request_id,
                client.llm.subscribe_stream(request_id=request_id),
                client.subscriptions.llm_stream(request_id=request_id),
                value_of=chunk_value,
                words_of=words_of_chunk,
                until=until,
            )
            ticket = stage.ledger.send()
            answer = await client.llm.chat_completion(
                model="echo",
                messages=[ChatMessageInput(role="user", content=_PROMPTS[number % len(_PROMPTS)])],
                stream=True,
                project_id=PROJECT,
                request_id=request_id,
            )
            chunks, charges = owed_chunks(answer), self._charge(answer)
            stage.ledger.accepted(
                ticket, {("llmStream", request_id): chunks, ("costUpdates", PROJECT): charges}
            )
            for stream in streams:
                await stream.wait_closed()
        stage.ledger.close("llmStream", request_id)

    def _charge(self, answer: LLMResponse) -> list[Hashable]:
        """Tell what the answer's cost does to the budget."""
        cost = 0.0 if answer.usage is None else answer.usage.estimated_cost
        before, self._used = self._used, _usd(self._used + cost)
        owed: list[Hashable] = [("COST_INCURRED", _usd(cost), self._used)]
        for line, event_type in ((WARNING_THRESHOLD, "BUDGET_WARNING"), (1.0, "BUDGET_EXHAUSTED")):
            if before / BUDGET_USD < line <= self._used / BUDGET_USD:
                owed.append((event_type, 0.0, self._used))
        return owed


def chunk_value(chunk: LLMStreamChunk) -> Hashable:
    """Reduce a chunk to what the answer foretells."""
    total = None if chunk.usage is None else chunk.usage.total_tokens
    return (chunk.request_id, chunk.type, chunk.delta, total)


def owed_chunks(answer: LLMResponse) -> list[Hashable]:
    """Tell the chunks that a completion owes, from its answer alone: the provider sends a word at a time."""
    total = None if answer.usage is None else answer.usage.total_tokens
    return [
        (answer.id, "STREAM_START", None, None),
        *((answer.id, "CONTENT_DELTA", word, None) for word in _WORD.findall(answer.content)),
        (answer.id, "STREAM_END", None, total),
    ]


def cost_value(update: CostUpdate) -> Hashable:
    """Reduce an update to what answers foretell."""
    return (update.type, _usd(update.amount), _usd(update.total_cost))


def _usd(amount: float) -> float:
    return round(amount, 12)
