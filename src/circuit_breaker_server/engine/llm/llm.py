"""The commands on language models: providers are configured, completions run."""

from __future__ import annotations

import asyncio
from typing import final

import msgspec

from circuit_breaker_server.engine.asker import ASKER
from circuit_breaker_server.engine.checks import (
    check_name,
    refuse,
)
from circuit_breaker_server.engine.command import Appender, Committed, Value
from circuit_breaker_server.engine.costs.costs import Costs
from circuit_breaker_server.engine.cursor import Cursor
from circuit_breaker_server.engine.errors import EngineError, ErrorCode, shown
from circuit_breaker_server.engine.events import Finite, Selection
from circuit_breaker_server.engine.idempotency import Effect
from circuit_breaker_server.engine.llm.checking import check_completion, check_provider
from circuit_breaker_server.engine.llm.completion import CompletionRun
from circuit_breaker_server.engine.llm.endpoints import (
    Echo,
    Endpoint,
    OpenAIEndpoint,
)
from circuit_breaker_server.engine.llm.inputs import ChatCompletion, ProviderConfig
from circuit_breaker_server.engine.llm.records import (
    CompletionFailed,
    CompletionRequested,
    ProviderConfigured,
    completion_subject,
    provider_subject,
)
from circuit_breaker_server.engine.llm.routing import ECHO, Route, find_route
from circuit_breaker_server.engine.llm.state import (
    CompletionEntry,
    LlmState,
    ProviderEntry,
    configured,
    is_too_old,
)
from circuit_breaker_server.engine.llm.streams import ends
from circuit_breaker_server.engine.secrets import Secrets
from circuit_breaker_server.logs import get_logger

__all__ = ["Llm"]

_log = get_logger("llm")


@final
class Llm:
    """Providers and completions.

    A completion runs in the background and outlives the caller that waits for it.

    :param timeout_seconds: for each wait for a provider.

    Example::

        done = await engine.llm.complete(ChatCompletion(model="echo", messages=(ChatMessage(...),)))
    """

    def __init__(
        self, state: LlmState, appender: Appender, costs: Costs, secrets: Secrets, *, timeout_seconds: float
    ) -> None:
        self._state = state
        self._appender = appender
        self._costs = costs
        self._secrets = secrets
        self._timeout_seconds = timeout_seconds
        self._configuring = asyncio.Lock()
        self._endpoints: dict[tuple[str, str | None], Endpoint] = {}
        self._running: set[asyncio.Task[Committed[Value]]] = set()

    async def start(self) -> None:
        """End the completions that were running when the server stopped."""
        for entry in self._state.completions.values():
            if entry.ended_at is None:
                body = CompletionFailed(
                    request_id=entry.request_id,
                    at=self._appender.at(),
                    provider_id=entry.provider_id,
                    latency_ms=0,
                    streaming=entry.streaming,
                    error="interrupted: the server stopped",
                    blames_provider=False,
                )
                record_id = self._appender.follow_up_id("interrupted", entry.request_id, entry.check)
                await self._appender.append(
                    completion_subject(entry.request_id), body, expected=entry.last, record_id=record_id
                )

    async def aclose(self) -> None:
        """Stop the completions that run, and close connections. Idempotent."""
        running = list(self._running)
        for task in running:
            task.cancel()
        if running:
            await asyncio.wait(running)
        endpoints, self._endpoints = self._endpoints, {}
        for endpoint in endpoints.values():
            await endpoint.aclose()

    # --- queries ---

    def providers(self) -> list[Value]:
        """Return all providers as ``LlmProviderGQL``, the built-in one first."""
        return [_provider_value(entry) for entry in (ECHO, *self._state.providers.values())]

    def provider(self, provider_id: str) -> Value | None:
        """Return a provider as ``LlmProviderGQL``, ``None`` if there is none."""
        entry = ECHO if provider_id == ECHO.id else self._state.providers.get(provider_id)
        return None if entry is None else _provider_value(entry)

    def asked_by(self, request_id: str) -> str | None:
        """Return who asked for a completion, empty if nobody was asked who he is; ``None``: there is none."""
        entry = self._state.completions.get(request_id)
        return None if entry is None else entry.asked_by

    def select_stream(self, request_id: str) -> Selection:
        """Tell what ``llmStream`` reads.

        :raises EngineError: ``INVALID_INPUT``: no request could have the id.
        """
        check_name(request_id, "requestId")

        def start() -> Cursor | None:
            entry = self._state.completions.get(request_id)
            if entry is None:
                return None
            self._require_readable(entry)
            return Cursor(self._appender.epoch, entry.created, 0, entry.check)

        def is_over() -> bool:
            entry = self._state.completions.get(request_id)
            return entry is not None and entry.ended_at is not None

        missing = f"no completion with the requestId {shown(request_id)} was requested in time"
        return Selection((completion_subject(request_id),), finite=Finite(start, is_over, ends, missing))

    def _require_readable(self, entry: CompletionEntry) -> None:
        if not entry.streaming:
            refuse(f"requestId: completion {shown(entry.request_id)} is not streamed: ask for it with stream")
        if is_too_old(entry.ended_at, self._appender.now()):
            raise EngineError(
                ErrorCode.NOT_FOUND, f"the stream of completion {shown(entry.request_id)} is over for a day"
            )

    # --- commands ---

    async def configure_provider(self, given: ProviderConfig) -> Committed[Value]:
        """Add a provider, or change the one of that name; answers ``LlmProviderGQL``.

        :raises EngineError: ``INVALID_INPUT``, ``UNAVAILABLE``.
        """
        check_provider(given)
        if given.api_key_id and self._secrets.api_key(given.api_key_id) is None:
            refuse(
                f"apiKeyId: the server knows no key {shown(given.api_key_id)}; set "
                "CIRCUIT_BREAKER_API_KEY_<ID> in its environment, or leave it empty where none is needed"
            )
        async with self._configuring:
            old = next((p for p in self._state.providers.values() if p.name == given.name), None)
            at = self._appender.at()
            body = ProviderConfigured(
                id=self._appender.new_id() if old is None else old.id,
                provider_type=given.provider_type,
                name=given.name,
                base_url=given.base_url,
                api_key_id=given.api_key_id,
                models=given.models,
                created_at=at if old is None else old.created_at,
                updated_at=at,
            )
            value = _provider_value(configured(body, created=0, last=0))
            record = await self._appender.append_own(
                provider_subject(body.id),
                body,
                expected=0 if old is None else old.last,
                conflict=f"provider {shown(given.name)} was changed by another operation first; try again",
                effect=Effect.of(value),
            )
        return self._appender.committed(value, record)

    def route(self, model: str) -> Route:
        """Find the provider of a model.

        :raises EngineError: ``NOT_FOUND``.
        """
        return find_route(model, self._state.providers.values())

    def endpoint(self, base_url: str, api_key: str | None) -> Endpoint:
        """Return where to ask; connections are kept."""
        key = (base_url, api_key)
        if key not in self._endpoints:
            self._endpoints[key] = OpenAIEndpoint(base_url, api_key, timeout_seconds=self._timeout_seconds)
        return self._endpoints[key]

    def endpoint_of(self, provider: ProviderEntry) -> Endpoint:
        """Return where a provider is asked."""
        if provider.id == ECHO.id:
            return Echo()
        api_key = self._secrets.api_key(provider.api_key_id) if provider.api_key_id else None
        return self.endpoint(provider.base_url, api_key)

    async def complete(self, given: ChatCompletion) -> Committed[Value]:
        """Run a completion to its end; answers ``LlmResponseGQL``. Cancelling the caller does not stop it.

        Under a key it never runs twice: the record that reserves the id takes the key, the last one has the
        answer, or the provider's failure. In between, the key has a claim and no answer.

        :raises EngineError: ``INVALID_INPUT``, ``NOT_FOUND``, ``CONFLICT``, ``PROVIDER_FAILED``,
            ``RATE_LIMITED``, ``UNAVAILABLE``.
        """
        check_completion(given)
        route = self.route(given.model)
        request_id = self._appender.new_id() if given.request_id is None else given.request_id
        given = msgspec.structs.replace(given, request_id=request_id)
        body = CompletionRequested(
            request_id=request_id,
            at=self._appender.at(),
            model=given.model,
            provider_id=route.provider.id,
            streaming=bool(given.stream),
            asked_by=ASKER.get(),
        )
        record = await self._appender.append_own(
            completion_subject(request_id),
            body,
            expected=0,
            conflict=f"requestId: {shown(request_id)} was used before; every request has an id of its own",
            effect=Effect(None),
        )
        run = CompletionRun(self._appender, self._costs, given, route=route, requested=record)
        task = asyncio.get_running_loop().create_task(run.run(self.endpoint_of(route.provider)))
        self._running.add(task)
        task.add_done_callback(self._forget)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            if task.cancelled():
                raise EngineError(
                    ErrorCode.UNAVAILABLE, "the server stopped before the completion was whole"
                ) from None
            raise

    def _forget(self, task: asyncio.Task[Committed[Value]]) -> None:
        self._running.discard(task)
        if (
            not task.cancelled()
            and task.exception() is not None
            and not isinstance(task.exception(), EngineError)
        ):
            _log.error("completion_failed", exc_info=task.exception())


def _provider_value(entry: ProviderEntry) -> Value:
    return {
        "id": entry.id,
        "providerType": entry.provider_type,
        "name": entry.name,
        "baseUrl": entry.base_url,
        "models": [msgspec.to_builtins(model) for model in entry.models],
        "healthStatus": entry.health_value(),
        "createdAt": entry.created_at,
        "updatedAt": entry.updated_at,
    }
