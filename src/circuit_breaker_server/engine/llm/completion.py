"""One completion as it runs."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Sequence
from typing import NoReturn, final

import msgspec

from circuit_breaker_server.engine.batching_writer import Outbox
from circuit_breaker_server.engine.command import Appender, Committed, Value
from circuit_breaker_server.engine.command_origin import ORIGIN
from circuit_breaker_server.engine.costs.costs import Costs
from circuit_breaker_server.engine.costs.records import Usage
from circuit_breaker_server.engine.errors import EngineError, ErrorCode, shown
from circuit_breaker_server.engine.fair_pool import FairPool
from circuit_breaker_server.engine.idempotency import Effect
from circuit_breaker_server.engine.llm.endpoints import Ask, Endpoint, Outcome, Piece, ProviderFailed
from circuit_breaker_server.engine.llm.inputs import ChatCompletion
from circuit_breaker_server.engine.llm.records import (
    CompletionEnded,
    CompletionFailed,
    CompletionStarted,
    PiecesAdded,
    completion_subject,
)
from circuit_breaker_server.engine.llm.routing import Route
from circuit_breaker_server.log.event_log import ExpectationFailed, Record

__all__ = ["CompletionRun"]


@final
class CompletionRun:
    """One completion, from its request to its last record.

    :param given: with its ``request_id``.
    :param payer: the user who pays, if no project does.
    :param requested: the record that reserved the id.
    :param turns: the completions that may run at once, with a share of each principal.
    :param seconds: how long it may take once its turn has come.
    """

    def __init__(
        self,
        appender: Appender,
        costs: Costs,
        given: ChatCompletion,
        *,
        payer: str | None,
        route: Route,
        requested: Record,
        turns: FairPool,
        seconds: float,
    ) -> None:
        self._appender = appender
        self._costs = costs
        self._given = given
        self._payer = payer
        self._route = route
        self._request_id = str(given.request_id)
        self._requested = requested
        self._turns = turns
        self._seconds = seconds
        self._last = requested.offset
        self._streaming = bool(given.stream)
        self._began = time.monotonic()

    async def run(self, endpoint: Endpoint) -> Committed[Value]:
        """Wait for a turn, ask, record what comes, charge the usage; answers ``LlmResponseGQL``.

        :raises EngineError: ``PROVIDER_FAILED``, ``RATE_LIMITED``, ``UNAVAILABLE``.
        """
        async with contextlib.AsyncExitStack() as turn:
            try:
                await turn.enter_async_context(self._turns.slot(ORIGIN.get().principal))
            except EngineError as error:
                raise await self._refused(error, str(error)) from error
            self._began = time.monotonic()
            return await self._run(endpoint)

    async def _run(self, endpoint: Endpoint) -> Committed[Value]:
        given, outcome = self._given, Outcome()
        ask = Ask(
            model=given.model,
            messages=given.messages,
            temperature=given.temperature,
            max_tokens=given.max_tokens,
            top_p=given.top_p,
            frequency_penalty=given.frequency_penalty,
            presence_penalty=given.presence_penalty,
            stop=given.stop,
            user=given.user,
        )
        pieces: list[Piece] = []
        outbox = Outbox(self._add, weigh=lambda piece: piece.json_bytes)
        await endpoint.prepare()
        try:
            if self._streaming:
                await self._append(CompletionStarted(request_id=self._request_id, at=self._appender.at()))
            try:
                async with asyncio.timeout(self._seconds) as limit:
                    async for piece in endpoint.ask(ask, outcome):
                        pieces.append(piece)
                        if self._streaming:
                            await outbox.put(piece)
            except TimeoutError as error:
                if not limit.expired():
                    raise
                raise ProviderFailed("timeout", f"not whole within {self._seconds:g} s") from error
            await outbox.flush()
            return await self._end(pieces, outcome)
        except ProviderFailed as error:
            await outbox.flush()
            text = f"{self._route.provider.name}: {error.message}"
            raise await self._refused(_refusal(error), text, blamed=error) from error
        finally:
            await outbox.aclose()

    async def _append(
        self,
        body: CompletionStarted | PiecesAdded | CompletionEnded | CompletionFailed,
        *,
        effect: Effect | None = None,
    ) -> Record:
        try:
            record = await self._appender.append(
                completion_subject(self._request_id), body, expected=self._last, effect=effect
            )
        except ExpectationFailed as error:
            raise EngineError(
                ErrorCode.CONFLICT, f"completion {shown(self._request_id)} was ended by another server"
            ) from error
        self._last = record.offset
        return record

    async def _add(self, pieces: list[Piece]) -> None:
        body = PiecesAdded(
            request_id=self._request_id,
            at=self._appender.at(),
            pieces=tuple((piece.text, piece.is_call) for piece in pieces),
        )
        await self._append(body)

    async def _refused(
        self, refusal: EngineError, error: str, *, blamed: ProviderFailed | None = None
    ) -> EngineError:
        """Record that the completion has failed; return what its caller is answered."""

        def refuse(_offset: str) -> NoReturn:
            raise refusal

        body = CompletionFailed(
            request_id=self._request_id,
            at=self._appender.at(),
            provider_id=self._route.provider.id,
            latency_ms=self._latency_ms(),
            streaming=self._streaming,
            error=error,
            blames_provider=blamed is not None,
        )
        if blamed is not None:
            body = msgspec.structs.replace(body, summary=f"{self._route.provider.name}: {blamed.summary}")
        await self._append(body, effect=Effect(refuse))
        return refusal

    async def _end(self, pieces: Sequence[Piece], outcome: Outcome) -> Committed[Value]:
        given, provider = self._given, self._route.provider
        content = "".join(piece.text for piece in pieces if not piece.is_call)
        price = self._route.price(given.model)
        prompt, completion = outcome.tokens(
            prompt_characters=sum(len(message.content) for message in given.messages),
            completion_characters=sum(len(piece.text) for piece in pieces),
            max_tokens=given.max_tokens,
            model=price,
        )
        usage = Usage(
            id=self._appender.follow_up_id("completion", self._request_id, self._requested.check),
            user=self._payer,
            project=given.project_id,
            provider=provider.name,
            model=given.model,
            prompt_tokens=prompt,
            completion_tokens=completion,
            cost=0.0 if price is None else price.cost_of(prompt, completion),
        )
        latency_ms = self._latency_ms()
        message: Value = {"role": "assistant", "content": content, "name": None}
        value: Value = {
            "id": self._request_id,
            "model": given.model,
            "choices": [{"index": 0, "message": message, "finishReason": outcome.finish_reason}],
            "usage": usage.tokens_value(),
            "provider": provider.name,
            "routingInfo": {
                "selectedProvider": provider.name,
                "routingStrategy": self._route.strategy,
                "latencyMs": latency_ms,
                "retryCount": outcome.retries,
                "fallbackUsed": False,
            },
        }
        record = await self._append(
            CompletionEnded(
                request_id=self._request_id,
                at=self._appender.at(),
                provider_id=provider.id,
                latency_ms=latency_ms,
                streaming=self._streaming,
                finish_reason=outcome.finish_reason,
                usage=usage,
            ),
            effect=Effect.of(value),
        )
        # Waited for, so that the caller's next query sees it; a log that fails now does not take the answer.
        with contextlib.suppress(EngineError):
            await self._costs.charge(usage)
        return self._appender.committed(value, record)

    def _latency_ms(self) -> int:
        return round((time.monotonic() - self._began) * 1000)


def _refusal(error: ProviderFailed) -> EngineError:
    facts: dict[str, object] = {"kind": error.kind, "retryable": error.retryable}
    if error.kind == "rate_limit":
        wait = error.retry_after_seconds
        return EngineError(ErrorCode.RATE_LIMITED, error.message, retryAfter=wait, **facts)
    return EngineError(ErrorCode.PROVIDER_FAILED, error.message, **facts)
